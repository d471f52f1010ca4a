package io.kvtier.deploy.simulate;

/** What a run adds up. */
final class Figures {
  long opened;
  long refused;
  long closed;
  long open;
  long openMost;
  long sessionsLost;
  long promptTokens;
  long reusedTokens;
  long generatedTokens;
  long replayedTokens;
  long plans;
  long planBytes;
  long heads;
  long headsDense;
  long headsSparse;
  long headsStreamed;
  long pagesPut;
  long bytesPut;
  long readsAsked;
  long readsServed;
  long pagesLost;
  long bytesRepaired;
  long bytesRepairedLeast;
  long bytesReadBack;
  long sessionsResumed;
  long sessionsMoved;
  long answersLost;
  long freedIdle;
  long staleRefused;
  long workersLost;
  long workersCut;
  long workersDrained;
  long tiersLost;
  long tiersDrained;
  long tiersJoined;
  long putsRefused;
  long leftToEvict;
  double homesMovedMost;
  double homesMovedExpected;
}
