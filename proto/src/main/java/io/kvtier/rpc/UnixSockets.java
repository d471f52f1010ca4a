package io.kvtier.rpc;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.channel.epoll.Epoll;
import io.netty.channel.epoll.EpollIoHandler;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFilePermissions;

/**
 * Unix-domain sockets, through epoll, so on Linux alone. Their threads are daemons, shared by all
 * endpoints and channels of the process, as gRPC shares its own.
 */
public final class UnixSockets {
  /** A target of this form is a Unix-domain socket. */
  static final String PREFIX = "unix:";

  /** Linux keeps 108 bytes with the ending zero; binding happens under a longer name. */
  private static final int PATH_BYTES_MAX = 107;

  private static final String PRIVATE_PREFIX = ".kvtier-";
  private static final String PRIVATE_NAME = "s";

  /** Of the private directory's name: the prefix and a random long, and the slashes around it. */
  private static final int PRIVATE_BYTES = PRIVATE_PREFIX.length() + 20 + 1 + PRIVATE_NAME.length();

  private UnixSockets() {}

  private static final class Threads {
    private static final EventLoopGroup GROUP =
        new MultiThreadIoEventLoopGroup(
            2 * Runtime.getRuntime().availableProcessors(),
            Thread.ofPlatform().daemon().name("kvtier-unix-", 0).factory(),
            EpollIoHandler.newFactory());
  }

  static EventLoopGroup threads() {
    return Threads.GROUP;
  }

  /**
   * Checks that a path can be a socket here.
   *
   * @throws KvtierException INVALID if it is too long; PRECONDITION if this system has no epoll
   */
  static void require(Path path) {
    int bytes = path.toAbsolutePath().toString().getBytes(UTF_8).length;
    if (bytes > PATH_BYTES_MAX - PRIVATE_BYTES) {
      throw KvtierException.invalid(
          "socket path has %d bytes (%s); it must have at most %d",
          bytes, path, PATH_BYTES_MAX - PRIVATE_BYTES);
    }
    if (!Epoll.isAvailable()) {
      throw new KvtierException(
          Code.PRECONDITION,
          "Unix-domain socket %s cannot be used: they need Linux with epoll; use host:port"
              .formatted(path),
          Epoll.unavailabilityCause());
    }
  }

  /** Binds a socket to a path. */
  public interface Binder {
    /** Binds it. */
    void bind(Path path) throws IOException;
  }

  /**
   * Has a socket bound to a path, for this user alone: in a private directory beside it first, so
   * that nobody else can connect to it before its mode is set, and then moved there, in place of
   * one that nobody serves.
   *
   * @throws KvtierException PRECONDITION if the path is taken
   */
  public static void bind(Path path, Binder binder) throws IOException {
    requireFree(path);
    Path parent = path.toAbsolutePath().getParent();
    Files.createDirectories(parent);
    Path directory =
        Files.createTempDirectory(
            parent,
            PRIVATE_PREFIX,
            PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
    Path bound = directory.resolve(PRIVATE_NAME);
    try {
      binder.bind(bound);
      Files.setPosixFilePermissions(bound, PosixFilePermissions.fromString("rw-------"));
      Files.move(bound, path, StandardCopyOption.ATOMIC_MOVE);
    } finally {
      Files.deleteIfExists(bound);
      Files.delete(directory);
    }
  }

  /**
   * Checks that a path is free: nothing is there, or a socket that nobody serves any more.
   *
   * @throws KvtierException PRECONDITION if it is not
   */
  private static void requireFree(Path path) {
    if (!Files.exists(path, LinkOption.NOFOLLOW_LINKS)) {
      return;
    }
    if (isServed(path)) {
      throw new KvtierException(
          Code.PRECONDITION,
          "socket %s is in use by another process; give another".formatted(path));
    }
    if (!isSocket(path)) {
      throw new KvtierException(
          Code.PRECONDITION,
          "%s is there and is no socket; give another path, or remove it".formatted(path));
    }
  }

  private static boolean isServed(Path path) {
    try (SocketChannel probe = SocketChannel.open(StandardProtocolFamily.UNIX)) {
      return probe.connect(UnixDomainSocketAddress.of(path));
    } catch (IOException refused) {
      return false;
    }
  }

  private static boolean isSocket(Path path) {
    try {
      // S_IFSOCK of inode(7).
      return ((int) Files.getAttribute(path, "unix:mode", LinkOption.NOFOLLOW_LINKS) & 0xF000)
          == 0xC000;
    } catch (IOException e) {
      return false;
    }
  }
}
