package io.kvtier.integration;

import io.grpc.Status.Code;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/**
 * One call that the contract refuses.
 *
 * @param name what is wrong with it
 * @param codes statuses the contract allows as the answer
 * @param mentions what the description must contain: the value and its bound
 * @param send makes the call; it must throw
 */
record WrongCall(String name, Set<Code> codes, List<String> mentions, Send send) {
  /** Makes a call to the services about some of the sessions. */
  @FunctionalInterface
  interface Send {
    void to(Loopback at, Quartet sessions) throws Exception;
  }

  /** INVALID_ARGUMENT. */
  static WrongCall invalid(String name, Send send, String... mentions) {
    return new WrongCall(name, EnumSet.of(Code.INVALID_ARGUMENT), List.of(mentions), send);
  }

  /** NOT_FOUND. */
  static WrongCall missing(String name, Send send, String... mentions) {
    return new WrongCall(name, EnumSet.of(Code.NOT_FOUND), List.of(mentions), send);
  }

  /** FAILED_PRECONDITION. */
  static WrongCall outOfOrder(String name, Send send, String... mentions) {
    return new WrongCall(name, EnumSet.of(Code.FAILED_PRECONDITION), List.of(mentions), send);
  }

  /** Where the contract names more than one fitting status, or a status of its own. */
  static WrongCall refused(String name, EnumSet<Code> codes, Send send, String... mentions) {
    return new WrongCall(name, codes, List.of(mentions), send);
  }

  @Override
  public String toString() {
    return name;
  }
}
