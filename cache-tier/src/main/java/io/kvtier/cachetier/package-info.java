/**
 * The cache tier: immutable pages by key, verified on the way in and out. The core here knows
 * neither gRPC nor Chronicle; {@link io.kvtier.cachetier.CacheTier} composes it with the adapters
 * of the subpackages.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.cachetier;
