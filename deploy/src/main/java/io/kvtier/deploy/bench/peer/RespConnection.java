package io.kvtier.deploy.bench.peer;

import static java.nio.charset.StandardCharsets.US_ASCII;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.io.EOFException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.util.List;

/**
 * One connection to a Redis server, as lean as a client can be: commands are written from direct
 * memory, and values are read from the socket straight into the caller's buffer. Blocking; one
 * thread at a time.
 */
public final class RespConnection implements AutoCloseable {
  private static final int BUFFER_BYTES = 256 << 10;

  /** Pipelined commands under way, in bytes of their values. */
  private static final int PIPELINE_BYTES = 2 << 20;

  private static final byte[] END = {'\r', '\n'};

  private final SocketChannel channel;
  private final ByteBuffer out = ByteBuffer.allocateDirect(BUFFER_BYTES);
  private final ByteBuffer in = ByteBuffer.allocateDirect(BUFFER_BYTES).flip();

  private RespConnection(SocketChannel channel) {
    this.channel = channel;
  }

  /** Connects over TCP or a Unix-domain socket. */
  static RespConnection open(SocketAddress address) throws IOException {
    SocketChannel channel = SocketChannel.open(address);
    if (address instanceof InetSocketAddress) {
      channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
    }
    return new RespConnection(channel);
  }

  /** Whether the server answers. */
  boolean ping() {
    command("PING");
    flush();
    return line().equals("+PONG");
  }

  /** GET: reads a value of the buffer's remaining length. */
  public void get(byte[] key, ByteBuffer value) {
    command("GET", key);
    flush();
    value(value);
  }

  /** MGET: reads the values end to end. */
  public void mget(List<byte[]> keys, int valueBytes, ByteBuffer values) {
    command("MGET", keys.toArray(byte[][]::new));
    flush();
    expect("*" + keys.size(), line());
    for (int i = 0; i < keys.size(); i++) {
      value(values.slice(i * valueBytes, valueBytes));
    }
  }

  /** Pipelined GETs: about as many under way as fill the sockets; values end to end. */
  public void getPipelined(List<byte[]> keys, int valueBytes, ByteBuffer values) {
    int ahead = Math.max(1, PIPELINE_BYTES / valueBytes);
    int asked = 0;
    for (int read = 0; read < keys.size(); read++) {
      if (asked < keys.size() && asked - read <= ahead / 2) {
        for (; asked < keys.size() && asked - read < ahead; asked++) {
          command("GET", keys.get(asked));
        }
        flush();
      }
      value(values.slice(read * valueBytes, valueBytes));
    }
  }

  /** Pipelined SETs: all are sent before the first answer is read, since answers are tiny. */
  public void setPipelined(List<byte[]> keys, List<ByteBuffer> values) {
    for (int i = 0; i < keys.size(); i++) {
      ByteBuffer value = values.get(i).duplicate();
      open(3);
      argument("SET".getBytes(US_ASCII));
      argument(keys.get(i));
      head('$', value.remaining());
      flush();
      writeAll(value);
      raw(END);
    }
    flush();
    for (int i = 0; i < keys.size(); i++) {
      expect("+OK", line());
    }
  }

  /** Pipelined EXISTS. */
  public int existsPipelined(List<byte[]> keys) {
    for (byte[] key : keys) {
      command("EXISTS", key);
    }
    flush();
    int found = 0;
    for (int i = 0; i < keys.size(); i++) {
      found += line().equals(":1") ? 1 : 0;
    }
    return found;
  }

  /** FLUSHALL. */
  public void clear() {
    command("FLUSHALL");
    flush();
    expect("+OK", line());
  }

  private void command(String name, byte[]... arguments) {
    open(1 + arguments.length);
    argument(name.getBytes(US_ASCII));
    for (byte[] argument : arguments) {
      argument(argument);
    }
  }

  private void open(int parts) {
    head('*', parts);
  }

  private void argument(byte[] bytes) {
    head('$', bytes.length);
    raw(bytes);
    raw(END);
  }

  private void head(char type, int count) {
    raw((type + Integer.toString(count) + "\r\n").getBytes(US_ASCII));
  }

  private void raw(byte[] bytes) {
    if (out.remaining() < bytes.length) {
      flush();
    }
    out.put(bytes);
  }

  private void flush() {
    writeAll(out.flip());
    out.clear();
  }

  private void writeAll(ByteBuffer bytes) {
    try {
      while (bytes.hasRemaining()) {
        channel.write(bytes);
      }
    } catch (IOException e) {
      throw new UncheckedIOException("redis-server does not take commands", e);
    }
  }

  private void value(ByteBuffer value) {
    expect("$" + value.remaining(), line());
    int there = Math.min(in.remaining(), value.remaining());
    value.put(in.slice(in.position(), there));
    in.position(in.position() + there);
    while (value.hasRemaining()) {
      receive(value);
    }
    line();
  }

  private String line() {
    StringBuilder line = new StringBuilder();
    for (byte b = next(); b != '\n'; b = next()) {
      if (b != '\r') {
        line.append((char) b);
      }
    }
    return line.toString();
  }

  private byte next() {
    if (!in.hasRemaining()) {
      in.clear();
      receive(in);
      in.flip();
    }
    return in.get();
  }

  private void receive(ByteBuffer into) {
    try {
      if (channel.read(into) < 0) {
        throw new EOFException("redis-server closed the connection");
      }
    } catch (IOException e) {
      throw new UncheckedIOException("redis-server does not answer", e);
    }
  }

  private static void expect(String expected, String line) {
    if (!line.equals(expected)) {
      throw new KvtierException(
          Code.INTERNAL, "redis-server answered '%s'; expected '%s'".formatted(line, expected));
    }
  }

  @Override
  public void close() {
    try {
      channel.close();
    } catch (IOException e) {
      throw new UncheckedIOException("cannot close a connection to redis-server", e);
    }
  }
}
