package worker;

import io.temporal.activity.Activity;
import io.temporal.activity.ActivityInterface;

/** The activities {@code Work}, {@code Version} and {@code Greet}: the SDK makes the first letter a capital. */
@ActivityInterface
public interface Activities {
  /** Holds a slot for so many milliseconds. */
  int work(int milliseconds);

  /** The Build ID of the Worker that runs it. */
  String version();

  String greet(String name);

  final class Sample implements Activities {
    @Override
    public int work(int milliseconds) {
      try {
        Thread.sleep(milliseconds);
      } catch (InterruptedException e) {
        // The Worker stops, and waited long enough.
        throw Activity.wrap(e);
      }
      return milliseconds;
    }

    @Override
    public String version() {
      String build = System.getenv("TEMPORAL_WORKER_BUILD_ID");
      return build == null ? "" : build;
    }

    @Override
    public String greet(String name) {
      return "java greets " + name;
    }
  }
}
