package io.kvtier.deploy.trace;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.trace.TraceStep;
import java.io.IOException;
import java.io.StringReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import javax.xml.parsers.DocumentBuilderFactory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.w3c.dom.Document;
import org.w3c.dom.Element;
import org.w3c.dom.NodeList;
import org.xml.sax.InputSource;

/** Traces read back, summed up and drawn. */
final class TraceTest {
  private static final double LEGEND_Y = 150;

  @TempDir private Path directory;

  private Path file(String text) throws IOException {
    return Files.writeString(directory.resolve("trace.csv"), text);
  }

  private Trace trace(String... lines) throws IOException {
    return Trace.read(file(TraceStep.HEADER + "\n" + String.join("\n", lines) + "\n"));
  }

  private static String line(String session, int layer, int position, int unhiddenUs) {
    return session
        + ",%d,%d,1,0,%d,%d,100,20,3,1,1,2,500000,20000,DT,4"
            .formatted(layer, position, unhiddenUs + 50, unhiddenUs);
  }

  private void refused(Path file, String... mentions) {
    assertThatThrownBy(() -> Trace.read(file))
        .isInstanceOf(KvtierException.class)
        .hasMessageContainingAll(mentions);
  }

  @Test
  void whatIsNoTraceIsRefusedWithWhatIsWrong() throws IOException {
    String good = TraceStep.HEADER + "\n" + line("a", 0, 0, 1) + "\n";
    refused(directory.resolve("none.csv"), "none.csv is no file");
    refused(directory, "is no file");
    refused(file(""), "is empty");
    refused(file("hello\nworld\n"), "no trace of this version", "session,layer");
    refused(file("\u0000\u00ff\ufffd"), "no trace of this version");
    refused(file(TraceStep.HEADER + "\n"), "has no step");
    refused(file(good + "a,0,1,1"), "line 3", "cut off", "remove that line");
    // Cut where it still looks like a line.
    refused(file(good + line("a", 0, 1, 1)), "line 3", "cut off");
    refused(file(good + "a,0,1,1\n" + line("a", 0, 2, 1) + "\n"), "line 3", "4 fields");
    refused(file(good.replace(",DT,", ",XY,")), "line 2", "classes is 'XY'");
    assertThat(Trace.read(file(good)).steps()).hasSize(1);
  }

  @Test
  void rowsSumUpTheirLayer() throws IOException {
    String[] lines = new String[100];
    for (int i = 0; i < 100; i++) {
      lines[i] = line("a", 1, i, i + 1);
    }
    Trace trace = trace(lines);
    assertThat(trace.dropped()).isEqualTo(4);
    assertThat(LayerRow.of(trace))
        .singleElement()
        .satisfies(row -> {
          assertThat(row.layer()).isEqualTo(1);
          assertThat(row.steps()).isEqualTo(100);
          assertThat(row.hitRatio()).isEqualTo(.75);
          assertThat(row.late()).isEqualTo(100);
          assertThat(row.near()).isEqualTo(200);
          assertThat(row.megabytes()).isEqualTo(50, within(1e-9));
          assertThat(row.wastedMegabytes()).isEqualTo(2, within(1e-9));
          assertThat(row.unhiddenP50Us()).isEqualTo(50);
          assertThat(row.unhiddenP99Us()).isEqualTo(99);
          assertThat(row.stepP50Us()).isEqualTo(100);
        });
  }

  @Test
  void oneSessionCanBeTakenOut() throws IOException {
    Trace trace = trace(line("ab", 0, 0, 1), line("ac", 0, 0, 1), line("ab", 0, 1, 1));
    assertThat(trace.sessions()).containsExactly("ab", "ac");
    assertThat(trace.ofSession("ab").steps()).hasSize(2);
    assertThatThrownBy(() -> trace.ofSession("a")).hasMessageContaining("2 of the 2 sessions");
    assertThatThrownBy(() -> trace.ofSession("b")).hasMessageContaining("0 of the 2 sessions");
  }

  /** Every cell has its layer's row, its step's column and the colour of its wait. */
  @Test
  void thePictureHasEachStepInItsPlace() throws Exception {
    Trace trace =
        trace(
            line("a", 0, 7, 0),
            line("a", 1, 7, 50),
            line("b", 0, 3, 0),
            line("b", 1, 3, 20_000),
            line("a", 0, 8, 2_000));
    Document svg = svg(trace);
    assertThat(rects(svg, "#4d0013")).containsExactly("110.0,96.0");
    assertThat(rects(svg, "#f03b20")).containsExactly("86.0,66.0");
    assertThat(rects(svg, "#fed976")).containsExactly("62.0,96.0");
    assertThat(svg.getDocumentElement().getTextContent())
        .contains("5 steps of a layer, 2 sessions", "4 steps were not recorded", "layer", "75 %");
  }

  /** Places of a colour's rectangles in the field. */
  private static List<String> rects(Document svg, String colour) {
    NodeList all = svg.getElementsByTagName("rect");
    List<String> found = new ArrayList<>();
    for (int i = 0; i < all.getLength(); i++) {
      Element rect = (Element) all.item(i);
      String y = rect.getAttribute("y");
      boolean legend = !y.isEmpty() && Double.parseDouble(y) > LEGEND_Y;
      if (!legend && rect.getAttribute("fill").equals(colour)) {
        found.add(rect.getAttribute("x") + "," + y);
      }
    }
    return found;
  }

  private static Document svg(Trace trace) throws Exception {
    String text = TracePicture.of(trace, LayerRow.of(trace));
    DocumentBuilderFactory factory = DocumentBuilderFactory.newInstance();
    return factory.newDocumentBuilder().parse(new InputSource(new StringReader(text)));
  }

  /** However many steps and layers, the picture keeps its size and draws all of its field. */
  @ParameterizedTest
  @ValueSource(ints = {1, 3000})
  void aLongTraceKeepsThePicturesSize(int steps) throws Exception {
    String[] lines = new String[2 * steps];
    for (int i = 0; i < steps; i++) {
      lines[2 * i] = line("a", 0, i, i % 3 == 0 ? 40_000 : 0);
      lines[2 * i + 1] = line("a", 80, i, 100);
    }
    Document svg = svg(trace(lines));
    assertThat(svg.getDocumentElement().getAttribute("width")).isEqualTo("954");
    assertThat(Integer.parseInt(svg.getDocumentElement().getAttribute("height"))).isLessThan(600);
    assertThat(svg.getElementsByTagName("rect").getLength()).isLessThan(2000);
    String text = svg.getDocumentElement().getTextContent();
    assertThat(text.contains("each column is the mean of 7")).isEqualTo(steps == 3000);
  }
}
