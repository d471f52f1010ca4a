/** The page format: header and section flyweights, page keys, checksums. FORMAT.md is normative. */
@org.jspecify.annotations.NullMarked
package io.kvtier.page;
