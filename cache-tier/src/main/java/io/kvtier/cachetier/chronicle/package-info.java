/** Pages in file-backed Chronicle Maps. The only package that knows Chronicle. */
@org.jspecify.annotations.NullMarked
package io.kvtier.cachetier.chronicle;
