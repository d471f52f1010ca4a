package io.kvtier.coordinator.membership;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.v1.Node;
import io.kvtier.v1.Role;
import java.util.regex.Pattern;

/** What a node may tell of itself (cluster.proto). */
final class NodeLimits {
  private static final int ID_LENGTH_MAX = 64;
  private static final int TARGET_LENGTH_MAX = 255;
  private static final Pattern ID = Pattern.compile("[A-Za-z0-9._-]+");
  private static final Pattern TARGET = Pattern.compile("[A-Za-z0-9.:_\\[\\]-]+:([0-9]{1,5})");

  private NodeLimits() {}

  static void check(Node node) {
    checkId(node.getNodeId());
    if (node.getRole() != Role.ROLE_WORKER && node.getRole() != Role.ROLE_TIER) {
      throw KvtierException.invalid(
          "role is %d; it must be ROLE_WORKER (1) or ROLE_TIER (2)", node.getRoleValue());
    }
    checkTarget(node.getTarget());
    checkBytes("bytes_max", node.getBytesMax());
  }

  static void checkId(String nodeId) {
    requireInRange("length of node_id", nodeId.length(), 1, ID_LENGTH_MAX);
    if (!ID.matcher(nodeId).matches()) {
      throw KvtierException.invalid(
          "node_id is '%s'; it must have 1..%d characters of [A-Za-z0-9._-]",
          nodeId, ID_LENGTH_MAX);
    }
  }

  static void checkBytes(String name, long bytes) {
    if (bytes < 0) {
      throw KvtierException.invalid(
          "%s is %s; it must be 0..%d", name, Long.toUnsignedString(bytes), Long.MAX_VALUE);
    }
  }

  private static void checkTarget(String target) {
    requireInRange("length of target", target.length(), 1, TARGET_LENGTH_MAX);
    var matcher = TARGET.matcher(target);
    if (!matcher.matches()) {
      throw KvtierException.invalid("target is '%s'; it must be host:port", target);
    }
    requireInRange("port of target " + target, Integer.parseInt(matcher.group(1)), 1, 0xFFFF);
  }
}
