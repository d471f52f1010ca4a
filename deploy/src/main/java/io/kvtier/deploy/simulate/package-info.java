/**
 * A cluster in virtual time: the product's own placement, planning, replication, leasing and
 * eviction, driven by a generated load and losses of nodes, watched by a book of its own. Nothing
 * here reads a clock or has a thread; one seed tells the whole story.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.deploy.simulate;
