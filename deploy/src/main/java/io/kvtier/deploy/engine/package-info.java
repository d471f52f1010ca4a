/**
 * A small decoder for Hugging Face directories of the Llama architecture, with its attention
 * delegated.
 *
 * <p>It exists so that kvtier can be shown and measured against a real model whose every number is
 * known: weights are read from safetensors, held in fp32 and multiplied on the vector unit.
 * Attention runs in an {@link io.kvtier.deploy.engine.AttentionBackend}; {@link
 * io.kvtier.deploy.engine.FullKvCache} is the exact one, which keeps everything in this process.
 */
package io.kvtier.deploy.engine;
