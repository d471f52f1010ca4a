/** Pages in memory of the C library's allocator: nothing outlives the process. */
@org.jspecify.annotations.NullMarked
package io.kvtier.cachetier.memory;
