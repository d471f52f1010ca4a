package io.kvtier.cachetier;

/** What became of a page that was to be stored; a refusal is an exception instead. */
public enum PutResult {
  /** It is stored and readable. */
  STORED,
  /** A page of that key was there already and has been left as it was. */
  EXISTED
}
