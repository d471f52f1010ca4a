/**
 * What {@code kvtier bench decode} measures: how near a session's decoding comes to full KV, on a
 * model's own text and questions.
 */
@NullMarked
package io.kvtier.deploy.bench.decode;

import org.jspecify.annotations.NullMarked;
