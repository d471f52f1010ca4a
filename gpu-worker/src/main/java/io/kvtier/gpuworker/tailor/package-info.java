/** TailorKV as published, as a yardstick: what kvtier's own way is compared with. */
@org.jspecify.annotations.NullMarked
package io.kvtier.gpuworker.tailor;
