package io.kvtier.gpuworker.session;

import io.kvtier.page.PageKey;
import java.util.List;

/**
 * Stored pages that a layer of a session begins with.
 *
 * @param keys of the pages, in order from the first
 * @param sinkKey of the page of its sink rows
 */
record LayerPages(List<PageKey> keys, PageKey sinkKey) {}
