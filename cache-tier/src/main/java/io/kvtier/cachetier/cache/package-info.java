/**
 * A page store as a cache: bounded, with an order of eviction, quotas, leases, a time to live and a
 * log of events. Pure: the clock is given, threads are the callers'.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.cachetier.cache;
