package io.kvtier.coordinator.lead;

import io.kvtier.v1.Node;

/**
 * A node that was heard and now refuses connections.
 *
 * @param refusingNs for how long it has
 */
public record Refusing(Node node, long refusingNs) {}
