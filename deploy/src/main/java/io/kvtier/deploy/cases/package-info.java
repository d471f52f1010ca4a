/**
 * Questions whose answers lie far back in a context: read from files, or generated from a seed.
 *
 * <p>A context is prefilled once and asked several questions, each from the same point. The answer
 * is right if greedy decoding gives exactly its tokens.
 */
package io.kvtier.deploy.cases;
