package io.kvtier.gpuworker.trace;

import static java.nio.charset.StandardCharsets.US_ASCII;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What a trace writes, what it drops, and that it tells. */
@Timeout(30)
final class TraceFileTest {
  private static TraceStep step(int position) {
    return new TraceStep(
        "s-1", 3, position, 2, 5_000, 900_000, 100_999, 512, 64, 7, 1, 3, 9, 4096, 1024, "DTOS");
  }

  @Test
  void everyFieldComesBack(@TempDir Path directory) throws IOException {
    Path file = directory.resolve("trace.csv");
    TraceFile trace = TraceFile.open(new TraceConfig(file, 4096), 1_000);
    assertThat(trace.sinceStartNs(6_000)).isEqualTo(5_000);
    trace.stepped(step(17));
    trace.close();

    List<String> lines = Files.readAllLines(file);
    assertThat(lines).hasSize(2).first().isEqualTo(TraceStep.HEADER);
    assertThat(lines.get(1)).isEqualTo("s-1,3,17,2,5,900,100,512,64,7,1,3,9,4096,1024,DTOS,0");
    // Microseconds are what a file keeps.
    TraceStep read = TraceStep.parse(lines.get(1)).step();
    assertThat(read)
        .isEqualTo(
            new TraceStep(
                "s-1", 3, 17, 2, 5_000, 900_000, 100_000, 512, 64, 7, 1, 3, 9, 4096, 1024, "DTOS"));
    assertThat(trace.summary()).isEqualTo("trace: 1 steps of a layer in " + file);
  }

  /** A disk that does not answer: steps are not held up, and what they lose is told. */
  private static final class StuckDisk extends OutputStream {
    final CountDownLatch writing = new CountDownLatch(1);
    final CountDownLatch free = new CountDownLatch(1);
    final ByteArrayOutputStream kept = new ByteArrayOutputStream();
    boolean header = true;

    @Override
    public void write(int b) {
      throw new IllegalStateException("lines are written whole");
    }

    @Override
    public void write(byte[] bytes) {
      if (!header) {
        writing.countDown();
        try {
          free.await();
        } catch (InterruptedException e) {
          throw new IllegalStateException(e);
        }
      }
      header = false;
      kept.writeBytes(bytes);
    }
  }

  @Test
  void aStuckDiskHoldsNoStepUpAndWhatIsDroppedIsCounted() throws Exception {
    StuckDisk disk = new StuckDisk();
    TraceFile trace = new TraceFile("t", disk, 1 << 20, 4, 0);
    trace.stepped(step(0));
    disk.writing.await();
    for (int position = 1; position <= 10; position++) {
      trace.stepped(step(position));
    }
    assertThat(trace.dropped()).isEqualTo(6);
    disk.free.countDown();
    trace.close();
    trace.stepped(step(11));

    List<TraceStep.Line> lines =
        disk.kept.toString(US_ASCII).lines().skip(1).map(TraceStep::parse).toList();
    assertThat(lines).extracting(line -> line.step().position()).containsExactly(0, 1, 2, 3, 4);
    assertThat(lines.getFirst().dropped()).isZero();
    assertThat(lines.getLast().dropped()).isEqualTo(6);
    assertThat(trace.summary())
        .isEqualTo("trace: 5 steps of a layer in t; 7 dropped, the queue was full");
  }

  @Test
  void theFileStaysWithinItsBytes(@TempDir Path directory) throws IOException {
    Path file = directory.resolve("trace.csv");
    TraceFile trace = TraceFile.open(new TraceConfig(file, 4096), 0);
    for (int position = 0; position < 200; position++) {
      trace.stepped(step(position));
    }
    trace.close();

    assertThat(Files.size(file)).isBetween(4000L, 4096L);
    int written = Files.readAllLines(file).size() - 1;
    assertThat(trace.dropped()).isEqualTo(200 - written);
    assertThat(trace.summary()).contains("%d dropped, the file is full".formatted(200 - written));
  }

  @Test
  void aDiskThatFailsIsToldAndStopsNothing() throws IOException {
    OutputStream full =
        new OutputStream() {
          private int lines;

          @Override
          public void write(int b) {
            throw new IllegalStateException("lines are written whole");
          }

          @Override
          public void write(byte[] bytes) throws IOException {
            if (lines++ > 1) {
              throw new IOException("no space left");
            }
          }
        };
    TraceFile trace = new TraceFile("t", full, 1 << 20, 16, 0);
    for (int position = 0; position < 5; position++) {
      trace.stepped(step(position));
    }
    trace.close();

    assertThat(trace.dropped()).isEqualTo(4);
    assertThat(trace.summary()).contains("4 dropped, writing failed", "no space left");
  }

  @Test
  void aFileThatCannotBeWrittenIsRefused(@TempDir Path directory) {
    TraceConfig nowhere = new TraceConfig(directory.resolve("no/such/trace.csv"), 4096);
    assertThatThrownBy(() -> TraceFile.open(nowhere, 0))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("no/such/trace.csv");
    assertThatThrownBy(() -> new TraceConfig(directory, 4095))
        .hasMessage("trace bytes is 4095; it must be 4096..9223372036854775807");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          s,0,0,1,0,0,0,0,0,0,0,0,0,0,0,D          | the line has 16 fields; it must have 17
          s,512,0,1,0,0,0,0,0,0,0,0,0,0,0,D,0      | layer is 512; it must be 0..511
          s,0,-1,1,0,0,0,0,0,0,0,0,0,0,0,D,0       | position is -1; it must be 0..1048576
          s,0,0,1,0,9x,0,0,0,0,0,0,0,0,0,D,0       | step_us is '9x'; it must be a whole number
          s,0,0,1,0,0,0,0,0,0,0,0,0,0,-1,D,0       | wasted is -1; it must be 0..4503599627370496
          s,0,0,1,0,0,0,0,0,0,0,0,0,0,0,DQ,0       | classes is 'DQ'
          <s>,0,0,1,0,0,0,0,0,0,0,0,0,0,0,D,0      | session is '<s>'
          s,0,0,1,0,0,0,0,0,0,0,0,0,0,0,D,         | dropped is ''
          """)
  void wrongLinesAreRefused(String line, String message) {
    assertThatThrownBy(() -> TraceStep.parse(line))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining(message);
  }
}
