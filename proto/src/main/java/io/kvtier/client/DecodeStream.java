package io.kvtier.client;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.AcceptedPath;
import io.kvtier.v1.DecodeAccept;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.DecodeStep;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import java.util.HashMap;
import java.util.Map;

/**
 * Decodes a session, one layer of one step at a time. One thread.
 *
 * <p>Speculative decoding: {@link #treeStep} lets a tree of drafted tokens attend, none of which is
 * appended; {@link #accept} then tells which of them came true, and the layer's next step carries
 * that along. A layer has one tree at a time.
 *
 * <p>When the worker fails, the session is resumed, its next worker is sent what it lacks, trees
 * that wait included, and the step that was under way is sent again; its caller sees that it took
 * longer, at most the time-out.
 */
public final class DecodeStream implements AutoCloseable {
  private static final int[] NO_PARENTS = {};

  /** What was accepted of each layer's tree and not sent yet. */
  private final Map<Integer, AcceptedPath> accepted = new HashMap<>();

  private final DecodeCourse course;
  private final Geometry geometry;

  DecodeStream(SessionLink link) {
    this.course = new DecodeCourse(link);
    this.geometry = link.session().getGeometry();
  }

  /**
   * Appends new tokens to one layer and lets each attend to all tokens up to itself.
   *
   * @param position of the first new token: exactly the number of tokens the layer already has,
   *     accepted ones included
   * @param tokens 1..64
   * @param queries {@code [tokens][qHeads][headDim]}, with positional rotation
   * @param keys {@code [tokens][kvHeads][headDim]}, rounded to the session's dtype
   * @param values same shape as keys
   * @param hint predicted queries of the next layer, in the shape of queries; empty: none
   * @param output receives {@code [tokens][qHeads][headDim]}
   * @return what the step cost, with everything else the worker tells
   */
  public DecodeResponse step(
      int layer,
      int position,
      int tokens,
      float[] queries,
      float[] keys,
      float[] values,
      float[] hint,
      float[] output) {
    return step(layer, position, tokens, NO_PARENTS, queries, keys, values, hint, output);
  }

  /**
   * Lets each token of a tree attend to the context, its ancestors and itself. The tokens are not
   * appended: they wait with the layer until its next message says which were accepted.
   *
   * @param position of the tree's roots: exactly the number of tokens the layer already has,
   *     accepted ones included; a token's own is that plus the number of its ancestors, which its
   *     rotation must follow
   * @param parents one a token: -1, it follows the context's last token, or the index of the token
   *     that it follows, below its own; 1..64 of them
   * @param queries {@code [tokens][qHeads][headDim]}; the other arrays as in a {@link #step}
   * @param hint of its rows the last one is used
   */
  public DecodeResponse treeStep(
      int layer,
      int position,
      int[] parents,
      float[] queries,
      float[] keys,
      float[] values,
      float[] hint,
      float[] output) {
    if (parents.length == 0) {
      throw KvtierException.invalid("parents has 0 entries; a tree has 1..64 tokens");
    }
    return step(layer, position, parents.length, parents, queries, keys, values, hint, output);
  }

  /**
   * Notes what was accepted of a layer's tree, to be sent with the layer's next step on this
   * stream. Called again before that step, it replaces what was noted.
   *
   * @param nodes indices in the tree: a root, then each time a child of the one before; none: all
   *     are dropped
   */
  public void accept(int layer, int... nodes) {
    accepted.put(layer, path(nodes));
  }

  /**
   * Tells what was accepted of a layer's tree at once, for a layer that has no further step.
   *
   * @param nodes as in {@link #accept}
   * @return the layer's tokens (position), and what else the worker tells
   */
  public DecodeResponse acceptNow(int layer, int... nodes) {
    accepted.remove(layer);
    DecodeAccept accept =
        DecodeAccept.newBuilder().setLayer(layer).setAccepted(path(nodes)).build();
    return course.accept(accept);
  }

  private static AcceptedPath path(int... nodes) {
    AcceptedPath.Builder path = AcceptedPath.newBuilder();
    for (int node : nodes) {
      path.addNodes(node);
    }
    return path.build();
  }

  private DecodeResponse step(
      int layer,
      int position,
      int tokens,
      int[] parents,
      float[] queries,
      float[] keys,
      float[] values,
      float[] hint,
      float[] output) {
    int qHeads = geometry.getQHeads();
    int kvHeads = geometry.getKvHeads();
    int headDim = geometry.getHeadDim();
    Dtype kvDtype = geometry.getKvDtype();
    // Before anything is sent: what has been appended cannot be sent again.
    Tensors.requireElements("queries", queries, tokens, qHeads, headDim);
    Tensors.requireElements("keys", keys, tokens, kvHeads, headDim);
    Tensors.requireElements("values", values, tokens, kvHeads, headDim);
    Tensors.requireElements("output", output, tokens, qHeads, headDim);
    if (hint.length > 0) {
      Tensors.requireElements("hint", hint, tokens, qHeads, headDim);
    }
    DecodeStep.Builder step =
        DecodeStep.newBuilder()
            .setLayer(layer)
            .setPosition(position)
            .setQueries(Tensors.of(Dtype.DTYPE_FP32, queries, tokens, qHeads, headDim))
            .setKeys(Tensors.of(kvDtype, keys, tokens, kvHeads, headDim))
            .setValues(Tensors.of(kvDtype, values, tokens, kvHeads, headDim));
    if (hint.length > 0) {
      step.setHint(Tensors.of(Dtype.DTYPE_FP32, hint, tokens, qHeads, headDim));
    }
    for (int parent : parents) {
      step.addParents(parent);
    }
    AcceptedPath resolved = accepted.remove(layer);
    if (resolved != null) {
      step.setAccepted(resolved);
    }
    DecodeResponse response = course.step(step.build());
    if (response.getLayer() != layer || response.getPosition() != position) {
      throw new KvtierException(
          Code.INTERNAL,
          "asked for layer %d at position %d, answered layer %d at position %d"
              .formatted(layer, position, response.getLayer(), response.getPosition()));
    }
    float[] attended = Tensors.toFloats("output", response.getOutput(), tokens, qHeads, headDim);
    System.arraycopy(attended, 0, output, 0, attended.length);
    return response;
  }

  @Override
  public void close() {
    course.close();
  }
}
