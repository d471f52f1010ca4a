/** Sessions: prefill, decode, fetch, prefetch and write-behind. */
@org.jspecify.annotations.NullMarked
package io.kvtier.gpuworker.session;
