package worker;

import io.temporal.activity.ActivityOptions;
import io.temporal.common.VersioningBehavior;
import io.temporal.workflow.Async;
import io.temporal.workflow.Promise;
import io.temporal.workflow.SignalMethod;
import io.temporal.workflow.Workflow;
import io.temporal.workflow.WorkflowInterface;
import io.temporal.workflow.WorkflowMethod;
import io.temporal.workflow.WorkflowVersioningBehavior;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/** The Workflows; each has the name of its interface. */
final class Workflows {
  @WorkflowInterface
  public interface Batch {
    @WorkflowMethod
    void run(int activities, int milliseconds);
  }

  /** Runs so many activities of so many milliseconds side by side. */
  public static final class BatchWorkflow implements Batch {
    private final Activities stub = activities(Duration.ofHours(1));

    @Override
    public void run(int activities, int milliseconds) {
      List<Promise<Integer>> running = new ArrayList<>();
      for (int i = 0; i < activities; i++) {
        running.add(Async.function(stub::work, milliseconds));
      }
      Promise.allOf(running).get();
    }
  }

  @WorkflowInterface
  public interface HoldPinned {
    @WorkflowMethod
    void run();

    @SignalMethod
    void go();
  }

  @WorkflowInterface
  public interface HoldAutoUpgrade {
    @WorkflowMethod
    void run();

    @SignalMethod
    void go();
  }

  /** Asks for the version at its start, and again after the signal "go". */
  private static final class Hold {
    private final Activities stub = activities(Duration.ofMinutes(1));
    private boolean gone;

    void run() {
      stub.version();
      Workflow.await(() -> gone);
      stub.version();
    }

    void go() {
      gone = true;
    }
  }

  public static final class HoldPinnedWorkflow implements HoldPinned {
    private final Hold hold = new Hold();

    @Override
    @WorkflowVersioningBehavior(VersioningBehavior.PINNED)
    public void run() {
      hold.run();
    }

    @Override
    public void go() {
      hold.go();
    }
  }

  public static final class HoldAutoUpgradeWorkflow implements HoldAutoUpgrade {
    private final Hold hold = new Hold();

    @Override
    @WorkflowVersioningBehavior(VersioningBehavior.AUTO_UPGRADE)
    public void run() {
      hold.run();
    }

    @Override
    public void go() {
      hold.go();
    }
  }

  @WorkflowInterface
  public interface Listen {
    @WorkflowMethod
    String run();

    @SignalMethod
    void say(String text);
  }

  /** Waits for the signal "say". */
  public static final class ListenWorkflow implements Listen {
    private String heard;

    @Override
    public String run() {
      Workflow.await(() -> heard != null);
      return "java heard " + heard;
    }

    @Override
    public void say(String text) {
      heard = text;
    }
  }

  private static Activities activities(Duration startToClose) {
    return Workflow.newActivityStub(
        Activities.class, ActivityOptions.newBuilder().setStartToCloseTimeout(startToClose).build());
  }
}
