package io.kvtier.coordinator.raft;

import com.google.protobuf.InvalidProtocolBufferException;
import io.kvtier.coordinator.log.GuardedState;
import io.kvtier.v1.Applied;
import io.kvtier.v1.Command;
import io.kvtier.v1.SnapshotPart;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.StandardCopyOption;
import java.util.concurrent.CompletableFuture;
import org.apache.ratis.io.MD5Hash;
import org.apache.ratis.proto.RaftProtos.LogEntryProto;
import org.apache.ratis.protocol.Message;
import org.apache.ratis.protocol.RaftGroupId;
import org.apache.ratis.server.RaftServer;
import org.apache.ratis.server.protocol.TermIndex;
import org.apache.ratis.server.storage.FileInfo;
import org.apache.ratis.server.storage.RaftStorage;
import org.apache.ratis.statemachine.StateMachineStorage;
import org.apache.ratis.statemachine.TransactionContext;
import org.apache.ratis.statemachine.impl.BaseStateMachine;
import org.apache.ratis.statemachine.impl.SimpleStateMachineStorage;
import org.apache.ratis.statemachine.impl.SingleFileSnapshotInfo;
import org.apache.ratis.thirdparty.com.google.protobuf.ByteString;
import org.apache.ratis.util.MD5FileUtil;
import org.jspecify.annotations.Nullable;

/**
 * Applies committed commands to the state, and keeps snapshots of it. Ratis calls it on one thread.
 */
final class RaftStateMachine extends BaseStateMachine {
  private final GuardedState state;
  private final SimpleStateMachineStorage storage = new SimpleStateMachineStorage();

  RaftStateMachine(GuardedState state) {
    this.state = state;
  }

  @Override
  public void initialize(RaftServer server, RaftGroupId groupId, RaftStorage raftStorage)
      throws IOException {
    super.initialize(server, groupId, raftStorage);
    storage.init(raftStorage);
    load(storage.loadLatestSnapshot());
  }

  /** After another coordinator has sent a snapshot, as this one was too far behind. */
  @Override
  public void reinitialize() throws IOException {
    load(storage.loadLatestSnapshot());
  }

  @Override
  public StateMachineStorage getStateMachineStorage() {
    return storage;
  }

  @Override
  public CompletableFuture<Message> applyTransaction(TransactionContext transaction) {
    LogEntryProto entry = transaction.getLogEntry();
    Applied applied;
    try {
      Command command =
          Command.parseFrom(entry.getStateMachineLogEntry().getLogData().asReadOnlyByteBuffer());
      applied = state.apply(command);
    } catch (InvalidProtocolBufferException e) {
      // The log is checksummed: only another version of kvtier writes what this one cannot read.
      return CompletableFuture.failedFuture(e);
    }
    updateLastAppliedTermIndex(entry.getTerm(), entry.getIndex());
    return CompletableFuture.completedFuture(
        Message.valueOf(ByteString.copyFrom(applied.toByteArray())));
  }

  /** Reads go to the state itself; this one only tells that they may. */
  @Override
  public CompletableFuture<Message> query(Message request) {
    return CompletableFuture.completedFuture(Message.EMPTY);
  }

  @Override
  public long takeSnapshot() throws IOException {
    TermIndex last = getLastAppliedTermIndex();
    File file = storage.getSnapshotFile(last.getTerm(), last.getIndex());
    File unfinished = new File(file.getPath() + ".part");
    try (FileOutputStream disk = new FileOutputStream(unfinished);
        OutputStream out = new BufferedOutputStream(disk)) {
      state.read(held -> {
        held.snapshot(part -> write(part, out));
        return held;
      });
      out.flush();
      disk.getFD().sync();
    } catch (UncheckedIOException e) {
      throw e.getCause();
    }
    Files.move(
        unfinished.toPath(),
        file.toPath(),
        StandardCopyOption.ATOMIC_MOVE,
        StandardCopyOption.REPLACE_EXISTING);
    MD5Hash digest = MD5FileUtil.computeAndSaveMd5ForFile(file);
    var _ =
        storage.updateLatestSnapshot(
            new SingleFileSnapshotInfo(new FileInfo(file.toPath(), digest), last));
    return last.getIndex();
  }

  private static void write(SnapshotPart part, OutputStream out) {
    try {
      part.writeDelimitedTo(out);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private void load(@Nullable SingleFileSnapshotInfo snapshot) throws IOException {
    if (snapshot == null) {
      return;
    }
    File file = snapshot.getFile().getPath().toFile();
    MD5FileUtil.verifySavedMD5(file, snapshot.getFile().getFileDigest());
    try (InputStream in = new BufferedInputStream(Files.newInputStream(file.toPath()))) {
      state.read(held -> {
        held.clear();
        for (SnapshotPart part = read(in); part != null; part = read(in)) {
          held.restore(part);
        }
        return held;
      });
    } catch (UncheckedIOException e) {
      throw e.getCause();
    }
    setLastAppliedTermIndex(SimpleStateMachineStorage.getTermIndexFromSnapshotFile(file));
  }

  private static @Nullable SnapshotPart read(InputStream in) {
    try {
      return SnapshotPart.parseDelimitedFrom(in);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
