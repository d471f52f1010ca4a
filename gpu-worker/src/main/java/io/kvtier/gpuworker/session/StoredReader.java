package io.kvtier.gpuworker.session;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.client.PageTransport;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.gpuworker.session.CodesFetcher.PageHead;
import io.kvtier.page.PageKey;
import io.kvtier.page.Residence;
import java.util.ArrayList;
import java.util.List;
import java.util.function.IntPredicate;

/** Brings stored pages into a session's empty layers. One thread. */
final class StoredReader {
  private final LayerShape shape;
  private final PageTransport tier;
  private final SharedPages shared;
  private final CodesFetcher fetcher;
  private final IntPredicate room;
  private final SinkPage sinkPage;

  /**
   * A reader.
   *
   * @param room whether the device has room for the sketches of so many pages; if not, heads hold
   *     nothing of them
   */
  StoredReader(
      LayerShape shape,
      PageTransport tier,
      SharedPages shared,
      CodesFetcher fetcher,
      IntPredicate room) {
    this.room = room;
    this.shape = shape;
    this.tier = tier;
    this.shared = shared;
    this.fetcher = fetcher;
    this.sinkPage = new SinkPage(shape);
  }

  /**
   * Takes a layer's pages over: reads its sink rows, and the sketches that its heads hold.
   *
   * @return tokens that the layer has now
   * @throws io.kvtier.KvtierException LOST if a page is not stored any more; the layer is of no use
   *     then and must be released
   */
  int read(LayerPages stored, DeviceLayer device) {
    List<PageKey> keys = stored.keys();
    PageKey sinkKey = stored.sinkKey();
    // Held before they are read: what is there then stays.
    shared.hold(keys);
    shared.hold(List.of(sinkKey));
    float[] sinkKeys = new float[shape.sinkTokens() * shape.rowLength()];
    float[] sinkValues = new float[sinkKeys.length];
    tier.read(
        List.of(sinkKey),
        (page, offset, length, index) -> sinkPage.read(page, offset, sinkKeys, sinkValues));
    boolean sketched = device.residence(0) != Residence.STREAMED;
    device.restore(keys, sinkKeys, sinkValues);
    if (sketched && room.test(keys.size())) {
      holdSketches(device, keys);
    }
    return keys.size() * TOKENS;
  }

  private void holdSketches(DeviceLayer device, List<PageKey> keys) {
    Residence residence = Residence.TWO_PLANES;
    List<PageHead> wanted = new ArrayList<>();
    for (int page = 0; page < keys.size(); page++) {
      for (int head = 0; head < shape.kvHeads(); head++) {
        wanted.add(new PageHead(page, head, residence.sketch()));
      }
    }
    List<DeviceSlot> slots = fetcher.fetch(wanted, keys);
    for (int head = 0; head < shape.kvHeads(); head++) {
      List<DeviceSlot> ofHead = new ArrayList<>(keys.size());
      for (int at = head; at < slots.size(); at += shape.kvHeads()) {
        ofHead.add(slots.get(at));
      }
      device.hold(head, residence, ofHead, List.of());
    }
  }
}
