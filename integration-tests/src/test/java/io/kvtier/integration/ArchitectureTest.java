package io.kvtier.integration;

import static com.tngtech.archunit.base.DescribedPredicate.not;
import static com.tngtech.archunit.core.domain.JavaClass.Predicates.resideInAnyPackage;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static org.assertj.core.api.Assertions.assertThat;

import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.lang.ArchRule;
import io.kvtier.integration.planted.PlantedViolations;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** The fences of the tree. Each is also shown to fail on a violation planted in this module. */
class ArchitectureTest {
  private static final JavaClasses PRODUCT =
      new ClassFileImporter()
          .withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_TESTS)
          .importPackages("io.kvtier");

  private static final String[] PURE = {
    "io.kvtier.page..",
    "io.kvtier.codec..",
    "io.kvtier.attention..",
    "io.kvtier.replica..",
    "io.kvtier.gpuworker.core..",
    "io.kvtier.coordinator.session..",
    "io.kvtier.coordinator.membership..",
    "io.kvtier.coordinator.plan..",
    "io.kvtier.coordinator.profile..",
    "io.kvtier.cachetier",
    "io.kvtier.cachetier.cache..",
    "io.kvtier.cachetier.lease..",
    "io.kvtier.cachetier.watch..",
    "io.kvtier.cachetier.near..",
    "io.kvtier.integration.planted.pure.."
  };

  private static final String[] TECHNOLOGY = {
    "io.grpc..", "io.netty..", "net.openhft..", "io.micrometer..", "java.util.logging.."
  };

  /**
   * Rules by name; a parameterized test runs each twice, on the product and on the planted class.
   */
  @SuppressWarnings("ImmutableEnumChecker") // Rules are never changed; ArchUnit does not say so.
  enum Fence {
    CACHE_TIER_KNOWS_NO_OTHER_SERVICE(
        noClasses()
            .that()
            .resideInAnyPackage("io.kvtier.cachetier..", "io.kvtier.integration.planted.tier..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage(
                "io.kvtier.gpuworker..", "io.kvtier.coordinator..", "io.kvtier.deploy..")),
    WORKER_KNOWS_NO_OTHER_SERVICE(
        noClasses()
            .that()
            .resideInAnyPackage("io.kvtier.gpuworker..", "io.kvtier.integration.planted.worker..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage(
                "io.kvtier.cachetier..", "io.kvtier.coordinator..", "io.kvtier.deploy..")),
    COORDINATOR_KNOWS_NO_OTHER_SERVICE(
        noClasses()
            .that()
            .resideInAnyPackage(
                "io.kvtier.coordinator..", "io.kvtier.integration.planted.coordinator..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage(
                "io.kvtier.cachetier..", "io.kvtier.gpuworker..", "io.kvtier.deploy..")),
    PURE_PACKAGES_KNOW_NO_TECHNOLOGY(
        noClasses()
            .that(resideInAnyPackage(PURE).and(not(compositionRoots())))
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage(TECHNOLOGY)),
    PURE_PACKAGES_READ_NO_CLOCK(
        noClasses()
            .that(resideInAnyPackage(PURE).and(not(compositionRoots())))
            .should()
            .callMethod(System.class, "nanoTime")
            .orShould()
            .callMethod(System.class, "currentTimeMillis")),
    WHAT_A_SIMULATION_DRIVES_KNOWS_NO_WIRE_AND_NO_CLOCK(
        noClasses()
            .that()
            .resideInAnyPackage(
                "io.kvtier.coordinator.lead..",
                "io.kvtier.coordinator.log..",
                "io.kvtier.coordinator.state..",
                "io.kvtier.coordinator.prefix..",
                "io.kvtier.deploy.simulate..",
                "io.kvtier.integration.planted.pure..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage("io.grpc..", "io.netty..", "net.openhft..")
            .orShould()
            .callMethod(System.class, "nanoTime")
            .orShould()
            .callMethod(System.class, "currentTimeMillis")),
    CHRONICLE_STAYS_IN_ITS_ADAPTER(
        noClasses()
            .that()
            .resideInAPackage("io.kvtier..")
            .and()
            .resideOutsideOfPackage("io.kvtier.cachetier.chronicle..")
            .should()
            .dependOnClassesThat()
            .resideInAPackage("net.openhft..")),
    THE_DEMO_USES_THE_PUBLIC_CLIENT_ALONE(
        noClasses()
            .that()
            .resideInAnyPackage(
                "io.kvtier.deploy.demo..",
                "io.kvtier.deploy.engine..",
                "io.kvtier.integration.planted.demo..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage(
                "io.kvtier.cachetier..", "io.kvtier.gpuworker..", "io.kvtier.coordinator.."));

    final ArchRule rule;

    Fence(ArchRule rule) {
      this.rule = rule;
    }
  }

  /** A service's composition root sits beside its core and sees everything of its own service. */
  private static com.tngtech.archunit.base.DescribedPredicate<
          com.tngtech.archunit.core.domain.JavaClass>
      compositionRoots() {
    return com.tngtech.archunit.base.DescribedPredicate.describe(
        "composition roots",
        type ->
            List.of("CacheTier", "GpuWorker", "Coordinator").contains(outermost(type.getName())));
  }

  private static String outermost(String name) {
    String simple = name.substring(name.lastIndexOf('.') + 1);
    int dollar = simple.indexOf('$');
    return dollar < 0 ? simple : simple.substring(0, dollar);
  }

  @ParameterizedTest
  @EnumSource
  void theProductKeepsTheFence(Fence fence) {
    fence.rule.check(PRODUCT);
  }

  @ParameterizedTest
  @EnumSource
  void aPlantedViolationIsSeen(Fence fence) {
    JavaClasses planted =
        new ClassFileImporter().importPackages(PlantedViolations.class.getPackageName());
    assertThat(fence.rule.evaluate(planted).hasViolation()).isTrue();
  }

  @Test
  void theProductWasFound() {
    assertThat(PRODUCT.contain("io.kvtier.gpuworker.cpu.CpuDevice")).isTrue();
    assertThat(PRODUCT.contain("io.kvtier.cachetier.CacheTier")).isTrue();
    assertThat(PRODUCT.contain("io.kvtier.coordinator.Coordinator")).isTrue();
  }
}
