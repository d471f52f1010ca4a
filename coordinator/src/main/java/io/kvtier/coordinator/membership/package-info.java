/** Who is in the cluster. Pure: times come in as arguments. */
@org.jspecify.annotations.NullMarked
package io.kvtier.coordinator.membership;
