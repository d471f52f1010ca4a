package io.kvtier.coordinator.prefix;

/**
 * The pages of a prompt's beginning that are stored.
 *
 * @param pages from the first on without a gap, in all layers
 * @param checksums {@code [pages][layers]} header checksums, which with the prefix hashes make the
 *     keys
 * @param sinkChecksums {@code [layers]} of the sink rows' pages; empty if there are no pages
 */
public record StoredPrefix(int pages, int[] checksums, int[] sinkChecksums) {
  /** Nothing is stored. */
  public static final StoredPrefix NONE = new StoredPrefix(0, new int[0], new int[0]);
}
