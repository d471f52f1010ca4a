/** The program {@code kvtier}: launches the services, the demo and the benchmarks. */
@NullMarked
package io.kvtier.deploy;

import org.jspecify.annotations.NullMarked;
