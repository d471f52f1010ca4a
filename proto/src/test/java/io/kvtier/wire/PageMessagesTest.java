package io.kvtier.wire;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import com.google.protobuf.MessageLite;
import com.google.protobuf.UnknownFieldSet;
import io.grpc.HasByteBuffer;
import io.kvtier.KvtierException;
import io.kvtier.page.PageKey;
import io.kvtier.v1.GetResponse;
import io.kvtier.v1.GetRowsResponse;
import io.kvtier.v1.GetSectionsResponse;
import io.kvtier.v1.Miss;
import io.kvtier.v1.PageRows;
import io.kvtier.v1.PageSections;
import io.kvtier.v1.PutRequest;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.zip.CRC32C;
import org.agrona.DirectBuffer;
import org.agrona.MutableDirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** What we write, generated classes read; what they write, we read, however it comes. */
final class PageMessagesTest {
  private static final int BYTES_MAX = 1 << 20;
  private static final PageKey KEY = new PageKey(1, -2, 3, 0x0100);

  private final SplittableRandom random = new SplittableRandom(seed());

  private static long seed() {
    long seed = System.nanoTime();
    System.out.println("PageMessagesTest seed " + seed);
    return seed;
  }

  /** How a received message lies. */
  enum Source {
    /** In one piece. */
    BUFFER,
    /** As gRPC's transport has it: in slices of direct memory. */
    SLICES,
    /** As a stream that shows no buffers: the fallback. */
    STREAM;

    IncomingBytes of(byte[] wire, SplittableRandom random) {
      return switch (this) {
        case BUFFER -> {
          UnsafeBuffer padded = new UnsafeBuffer(ByteBuffer.allocateDirect(wire.length + 14));
          padded.putBytes(7, wire);
          yield new BufferBytes(padded, 7, wire.length);
        }
        case SLICES -> new StreamBytes(new Slices(wire, random));
        case STREAM -> new StreamBytes(new Dribbling(wire, random));
      };
    }
  }

  /** Gives fewer bytes than asked, as streams may. */
  private static class Dribbling extends ByteArrayInputStream {
    private final SplittableRandom random;

    Dribbling(byte[] wire, SplittableRandom random) {
      super(wire);
      this.random = random;
    }

    @Override
    public synchronized int read(byte[] target, int offset, int length) {
      return super.read(target, offset, length == 0 ? 0 : random.nextInt(1, length + 1));
    }
  }

  private static final class Slices extends Dribbling implements HasByteBuffer {
    private final ByteBuffer direct;
    private final SplittableRandom random;

    Slices(byte[] wire, SplittableRandom random) {
      super(wire, random);
      this.random = random;
      this.direct = ByteBuffer.allocateDirect(wire.length).put(wire).flip();
    }

    @Override
    public boolean byteBufferSupported() {
      return true;
    }

    @Override
    public ByteBuffer getByteBuffer() {
      int left = available();
      return direct.slice(count - left, Math.min(left, random.nextInt(1, 20_000)));
    }
  }

  private byte[] bytes(int max) {
    byte[] bytes = new byte[random.nextInt(max)];
    random.nextBytes(bytes);
    return bytes;
  }

  private static byte[] drained(OutgoingBytes message) {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    try (DrainedStream stream = new DrainedStream(message)) {
      assertThat(stream.available()).isEqualTo(message.length());
      assertThat(stream.drainTo(out)).isEqualTo(message.length());
      assertThat(stream.drainTo(out)).isZero();
    } catch (IOException e) {
      throw new AssertionError(e);
    }
    assertThat(out.size()).isEqualTo(message.length());
    return out.toByteArray();
  }

  private static byte[] copy(DirectBuffer buffer, int offset, int length) {
    byte[] copy = new byte[length];
    buffer.getBytes(offset, copy);
    return copy;
  }

  private UnsafeBuffer placed(byte[] page, boolean direct) {
    UnsafeBuffer buffer =
        direct
            ? new UnsafeBuffer(ByteBuffer.allocateDirect(page.length + 5))
            : new UnsafeBuffer(new byte[page.length + 9], 4, page.length + 5);
    buffer.putBytes(5, page);
    return buffer;
  }

  @ParameterizedTest
  @EnumSource
  void pagesRoundTrip(Source source) throws IOException {
    for (int i = 0; i < 200; i++) {
      byte[] page = bytes(i % 10 == 0 ? 300_000 : 3_000);
      int index = random.nextInt(2000);
      byte[] wire = drained(OutgoingBytes.page(index, placed(page, i % 2 == 0), 5, page.length));
      GetResponse expected =
          GetResponse.newBuilder().setIndex(index).setPage(ByteString.copyFrom(page)).build();
      assertThat(GetResponse.parseFrom(wire)).isEqualTo(expected);
      PageMessages.Answer answer =
          PageMessages.readGet(source.of(strange(expected), random), staging());
      assertThat(answer.index()).isEqualTo(index);
      assertThat(answer.miss()).isEqualTo(Miss.MISS_NONE);
      assertThat(copy(answer.bytes(), answer.offset(), answer.length())).isEqualTo(page);
    }
    GetResponse miss = GetResponse.newBuilder().setIndex(3).setMiss(Miss.MISS_CORRUPT).build();
    assertThat(GetResponse.parseFrom(drained(OutgoingBytes.miss(3, Miss.MISS_CORRUPT))))
        .isEqualTo(miss);
    assertThat(PageMessages.readGet(source.of(miss.toByteArray(), random), staging()).miss())
        .isEqualTo(Miss.MISS_CORRUPT);
  }

  @ParameterizedTest
  @EnumSource
  void sectionsRoundTrip(Source source) throws IOException {
    for (int i = 0; i < 100; i++) {
      OutgoingBytes message = OutgoingBytes.sections();
      GetSectionsResponse.Builder expected = GetSectionsResponse.newBuilder();
      List<byte[]> data = new ArrayList<>();
      for (int page = 0; page < 5; page++) {
        byte[] sections = bytes(20_000);
        int[] lengths = random.ints(3, 0, 5000).toArray();
        int[] checksums = random.ints(6).toArray();
        PageSections.Builder member = PageSections.newBuilder().setIndex(page);
        if (page == 2) {
          message.addMiss(page, Miss.MISS_ABSENT);
          member.setMiss(Miss.MISS_ABSENT);
          data.add(new byte[0]);
        } else {
          message.addSections(page, lengths, checksums, placed(sections, true), 5, sections.length);
          for (int length : lengths) {
            member.addLengths(length);
          }
          for (int checksum : checksums) {
            member.addChecksums(checksum);
          }
          member.setData(ByteString.copyFrom(sections));
          data.add(sections);
        }
        expected.addPages(member);
      }
      assertThat(GetSectionsResponse.parseFrom(drained(message))).isEqualTo(expected.build());
      int[] next = {0};
      PageMessages.readSections(
          source.of(strange(expected.build()), random),
          staging(),
          answer -> {
            PageSections member = expected.getPages(next[0]);
            assertThat(answer.index()).isEqualTo(next[0]);
            assertThat(answer.miss()).isEqualTo(member.getMiss());
            assertThat(answer.lengths())
                .isEqualTo(member.getLengthsList().stream().mapToInt(v -> v).toArray());
            assertThat(answer.checksums())
                .isEqualTo(member.getChecksumsList().stream().mapToInt(v -> v).toArray());
            assertThat(copy(answer.bytes(), answer.offset(), answer.length()))
                .isEqualTo(data.get(next[0]++));
          });
      assertThat(next[0]).isEqualTo(5);
    }
  }

  @ParameterizedTest
  @EnumSource
  void rowsRoundTrip(Source source) throws IOException {
    for (int i = 0; i < 100; i++) {
      Staging message = Staging.onHeap(BYTES_MAX);
      GetRowsResponse.Builder expected = GetRowsResponse.newBuilder();
      int at = 0;
      for (int page = 0; page < 5; page++) {
        byte[] rows = bytes(i % 10 == 0 ? 100_000 : 3_000);
        int index = page * random.nextInt(400);
        PageRows.Builder member = PageRows.newBuilder().setIndex(index);
        MutableDirectBuffer target = message.ensure(at + RowsMessage.bytesMax(rows.length), at);
        if (page == 2) {
          at = RowsMessage.miss(target, at, index, Miss.MISS_CORRUPT);
          member.setMiss(Miss.MISS_CORRUPT);
        } else {
          int dataAt = RowsMessage.begin(target, at, index, rows.length);
          target.putBytes(dataAt, rows);
          at = RowsMessage.end(target, dataAt, rows.length);
          CRC32C crc = new CRC32C();
          crc.update(rows);
          member.setData(ByteString.copyFrom(rows)).setChecksum((int) crc.getValue());
        }
        expected.addPages(member);
      }
      byte[] wire = drained(OutgoingBytes.written(message.buffer(), 0, at));
      assertThat(GetRowsResponse.parseFrom(wire)).isEqualTo(expected.build());
      int[] next = {0};
      PageMessages.readRows(
          source.of(strange(expected.build()), random),
          staging(),
          answer -> {
            PageRows member = expected.getPages(next[0]++);
            assertThat(answer.index()).isEqualTo(member.getIndex());
            assertThat(answer.miss()).isEqualTo(member.getMiss());
            assertThat(answer.checksums()).containsExactly(member.getChecksum());
            assertThat(copy(answer.bytes(), answer.offset(), answer.length()))
                .isEqualTo(member.getData().toByteArray());
          });
      assertThat(next[0]).isEqualTo(5);
    }
  }

  @ParameterizedTest
  @EnumSource
  void putsRoundTrip(Source source) throws IOException {
    for (int i = 0; i < 100; i++) {
      byte[] page = bytes(100_000);
      PutRequest expected =
          PutRequest.newBuilder()
              .setKey(KEY.toByteString())
              .setPage(ByteString.copyFrom(page))
              .build();
      assertThat(PutRequest.parseFrom(drained(OutgoingBytes.put(KEY, new UnsafeBuffer(page)))))
          .isEqualTo(expected);
      PageMessages.Put put = PageMessages.readPut(source.of(strange(expected), random), staging());
      assertThat(put.key()).isEqualTo(KEY.toByteString());
      assertThat(copy(put.bytes(), put.offset(), put.length())).isEqualTo(page);
    }
  }

  @ParameterizedTest
  @EnumSource
  void aMessageCutShortIsRefused(Source source) {
    byte[] whole =
        PutRequest.newBuilder()
            .setKey(KEY.toByteString())
            .setPage(ByteString.copyFrom(new byte[5000]))
            .build()
            .toByteArray();
    for (int length : new int[] {1, 2, 20, 34, 35, 36, 37, 100, whole.length - 1}) {
      IncomingBytes in = source.of(Arrays.copyOf(whole, length), random);
      if (length == 34) {
        assertThat(PageMessages.readPut(in, staging()).length()).isZero();
      } else {
        assertThatThrownBy(() -> PageMessages.readPut(in, staging()))
            .as("%d bytes", length)
            .isInstanceOf(KvtierException.class)
            .hasMessageContaining("the message has");
      }
    }
  }

  @ParameterizedTest
  @EnumSource
  void whatIsTooLongIsPassedOver(Source source) {
    byte[] wire =
        PutRequest.newBuilder()
            .setPage(ByteString.copyFrom(new byte[BYTES_MAX + 1]))
            .setKey(KEY.toByteString())
            .build()
            .toByteArray();
    PageMessages.Put put = PageMessages.readPut(source.of(wire, random), staging());
    assertThat(put.length()).isEqualTo(BYTES_MAX + 1);
    assertThat(put.bytes().capacity()).isZero();
    assertThat(put.key()).isEqualTo(KEY.toByteString());
  }

  private static Staging staging() {
    return Staging.offHeap(BYTES_MAX);
  }

  /** The same message with fields that we do not know behind it, of every wire type. */
  private byte[] strange(MessageLite message) {
    UnknownFieldSet unknown =
        UnknownFieldSet.newBuilder()
            .addField(
                77,
                UnknownFieldSet.Field.newBuilder()
                    .addVarint(random.nextLong())
                    .addFixed32(1)
                    .addFixed64(2)
                    .addLengthDelimited(ByteString.copyFrom(bytes(300)))
                    .build())
            .build();
    return message.toByteString().concat(unknown.toByteString()).toByteArray();
  }
}
