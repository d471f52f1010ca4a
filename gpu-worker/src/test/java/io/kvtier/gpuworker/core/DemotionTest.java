package io.kvtier.gpuworker.core;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.page.Residence;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;

class DemotionTest {
  private static List<Residence> steps(HeadPolicy policy) {
    List<Residence> steps = new ArrayList<>();
    Optional<List<HeadPolicy>> next = Optional.of(List.of(policy));
    while (next.isPresent()) {
      steps.add(next.get().getFirst().residence());
      next = Demotion.next(next.get(), 5000);
    }
    return steps;
  }

  @Test
  void aHeadGivesUpItsCodesThenAPlaneThenTheOther() {
    assertThat(steps(HeadPolicy.DENSE))
        .containsExactly(
            Residence.DENSE, Residence.TWO_PLANES, Residence.ONE_PLANE, Residence.STREAMED);
  }

  @Test
  void onePlaneIsLeftOutWhereItsScoresErr() {
    assertThat(steps(HeadPolicy.DENSE.withOnePlaneErrs(true)))
        .containsExactly(Residence.DENSE, Residence.TWO_PLANES, Residence.STREAMED);
    assertThat(steps(HeadPolicy.sparse(64, 100, .01f).withOnePlaneErrs(true)))
        .containsExactly(Residence.TWO_PLANES, Residence.STREAMED);
  }
}
