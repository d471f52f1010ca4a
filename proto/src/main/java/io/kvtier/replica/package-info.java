/**
 * Which nodes keep which page, whom to ask next, and what to mend: decisions alone. Time comes as
 * an argument; who calls brings threads, clock and transport.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.replica;
