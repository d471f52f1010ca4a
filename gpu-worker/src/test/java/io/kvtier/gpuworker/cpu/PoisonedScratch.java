package io.kvtier.gpuworker.cpu;

import io.kvtier.gpuworker.cpu.Workshop.Tools;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Residence;
import org.agrona.UnsafeApi;

/** Scratch that holds the worst that another page may have left in it. */
public final class PoisonedScratch {
  private PoisonedScratch() {}

  /** Fills the page scratch that the next task takes with NaNs of 16 bits. */
  public static void poison(CpuDevice device, LayerShape shape) {
    Tools tools = device.workshop.takeTools(shape);
    UnsafeApi.setMemory(tools.codesAddress, shape.codesBytes(Residence.STREAMED), (byte) 0xFF);
    device.workshop.giveBack(shape, tools);
  }
}
