package io.kvtier.deploy.engine;

/**
 * The working arrays of a forward pass over {@code tokens} tokens, each exactly as long as its
 * shape.
 */
final class Activations {
  final int tokens;

  /** The residual stream, {@code [tokens][hidden]}. */
  final float[] hidden;

  /** {@code [tokens][hidden]}. */
  final float[] normed;

  /** {@code [tokens][hidden]}: what a projection adds to the residual stream. */
  final float[] added;

  /** {@code [tokens][qHeads][headDim]}. */
  final float[] queries;

  /** {@code [tokens][kvHeads][headDim]}. */
  final float[] keys;

  /** {@code [tokens][kvHeads][headDim]}. */
  final float[] values;

  /** {@code [tokens][qHeads][headDim]}. */
  final float[] hint;

  /** {@code [tokens][qHeads][headDim]}. */
  final float[] attended;

  /** {@code [tokens][intermediate]}. */
  final float[] gate;

  /** {@code [tokens][intermediate]}. */
  final float[] up;

  /** {@code [tokens][headDim / 2]}. */
  final float[] cosines;

  /** {@code [tokens][headDim / 2]}. */
  final float[] sines;

  Activations(LlamaConfig config, int tokens) {
    this.tokens = tokens;
    hidden = new float[tokens * config.hiddenSize()];
    normed = new float[hidden.length];
    added = new float[hidden.length];
    queries = new float[tokens * config.qWidth()];
    keys = new float[tokens * config.kvWidth()];
    values = new float[keys.length];
    hint = new float[queries.length];
    attended = new float[queries.length];
    gate = new float[tokens * config.intermediateSize()];
    up = new float[gate.length];
    cosines = new float[tokens * config.headDim() / 2];
    sines = new float[cosines.length];
  }
}
