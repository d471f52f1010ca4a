package io.kvtier.coordinator.log;

import java.util.Optional;

/**
 * Who writes the log.
 *
 * @param leads whether this coordinator does, and has applied all that was written before
 * @param leader gRPC target, host:port, of the coordinator that does, if it is known
 * @param term rises whenever another coordinator begins to lead
 */
public record Leadership(boolean leads, Optional<String> leader, long term) {}
