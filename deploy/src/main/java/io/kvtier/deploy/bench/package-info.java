/** The frame of the benchmarks, and those that exist. */
@NullMarked
package io.kvtier.deploy.bench;

import org.jspecify.annotations.NullMarked;
