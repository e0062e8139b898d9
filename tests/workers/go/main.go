// A Worker on Temporal's Go SDK, as a team would write it: it reads what the operator puts into its environment, honours
// Worker Versioning, exports the SDK's metrics the way the SDK's own samples do, and finishes what runs on SIGTERM.
package main

import (
	"cmp"
	"context"
	"errors"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/uber-go/tally/v4"
	tallyprom "github.com/uber-go/tally/v4/prometheus"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	sdktally "go.temporal.io/sdk/contrib/tally"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	queue := os.Getenv("TASK_QUEUE")
	if queue == "" {
		return errors.New("TASK_QUEUE is not set; name the Task Queue to poll")
	}
	slots, err := strconv.Atoi(cmp.Or(os.Getenv("SLOTS"), "10"))
	if err != nil {
		return errors.New("SLOTS is not a number; set the activities that run at a time")
	}
	// The operator reads the Worker's heartbeats where it can't read the metrics.
	heartbeat, err := strconv.Atoi(cmp.Or(os.Getenv("HEARTBEAT_SECONDS"), "60"))
	if err != nil {
		return errors.New("HEARTBEAT_SECONDS is not a number; set the seconds between two heartbeats")
	}
	// Time that running tasks get after SIGTERM.
	drain, err := time.ParseDuration(cmp.Or(os.Getenv("DRAIN"), "20s"))
	if err != nil {
		return errors.New("DRAIN is no duration; write it as 20s")
	}
	metrics, closeMetrics, err := serveMetrics(cmp.Or(os.Getenv("METRICS_ADDRESS"), "0.0.0.0:9090"))
	if err != nil {
		return err
	}
	defer closeMetrics()
	// Reads TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY and the TEMPORAL_TLS variables.
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return err
	}
	options.MetricsHandler = metrics
	options.WorkerHeartbeatInterval = time.Duration(heartbeat) * time.Second
	c, err := client.Dial(options)
	if err != nil {
		return err
	}
	defer c.Close()

	w := worker.New(c, queue, worker.Options{
		MaxConcurrentActivityExecutionSize: slots,
		DeploymentOptions:                  deployment(),
		WorkerStopTimeout:                  drain,
	})
	w.RegisterActivityWithOptions(work, activity.RegisterOptions{Name: "Work"})
	w.RegisterActivityWithOptions(version, activity.RegisterOptions{Name: "Version"})
	w.RegisterActivityWithOptions(greet, activity.RegisterOptions{Name: "Greet"})
	w.RegisterWorkflowWithOptions(listen, workflow.RegisterOptions{Name: "Listen"})
	w.RegisterWorkflowWithOptions(batch, workflow.RegisterOptions{Name: "Batch"})
	w.RegisterWorkflowWithOptions(hold, workflow.RegisterOptions{
		Name:               "HoldPinned",
		VersioningBehavior: workflow.VersioningBehaviorPinned,
	})
	w.RegisterWorkflowWithOptions(hold, workflow.RegisterOptions{
		Name:               "HoldAutoUpgrade",
		VersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
	})
	return w.Run(worker.InterruptCh())
}

// deployment is the version that the operator gave this pod; without one the Worker is unversioned.
func deployment() worker.DeploymentOptions {
	name, build := os.Getenv("TEMPORAL_DEPLOYMENT_NAME"), os.Getenv("TEMPORAL_WORKER_BUILD_ID")
	if name == "" || build == "" {
		return worker.DeploymentOptions{}
	}
	return worker.DeploymentOptions{
		UseVersioning:             true,
		Version:                   worker.WorkerDeploymentVersion{DeploymentName: name, BuildID: build},
		DefaultVersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
	}
}

// serveMetrics exports the SDK's metrics in Prometheus' text format, renewed once a second, and the CPU of the process.
func serveMetrics(address string) (client.MetricsHandler, func(), error) {
	failed := func(err error) { log.Println("metrics:", err) }
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	configuration := tallyprom.Configuration{ListenAddress: address, TimerType: "histogram"}
	reporter, err := configuration.NewReporter(tallyprom.ConfigurationOptions{
		Registry: registry,
		OnError:  failed,
	})
	if err != nil {
		return nil, nil, err
	}
	scope, closer := tally.NewRootScope(tally.ScopeOptions{
		CachedReporter:  reporter,
		Separator:       tallyprom.DefaultSeparator,
		SanitizeOptions: &sdktally.PrometheusSanitizeOptions,
	}, time.Second)
	closeScope := func() {
		if err := closer.Close(); err != nil {
			failed(err)
		}
	}
	return sdktally.NewMetricsHandler(sdktally.NewPrometheusNamingScope(scope)), closeScope, nil
}

// work holds a slot for so many milliseconds.
func work(ctx context.Context, milliseconds int) (int, error) {
	select {
	case <-time.After(time.Duration(milliseconds) * time.Millisecond):
		return milliseconds, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// batch runs so many activities of so many milliseconds side by side.
func batch(ctx workflow.Context, activities, milliseconds int) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Hour})
	running := make([]workflow.Future, 0, activities)
	for range activities {
		running = append(running, workflow.ExecuteActivity(ctx, "Work", milliseconds))
	}
	for _, future := range running {
		if err := future.Get(ctx, nil); err != nil {
			return err
		}
	}
	return nil
}

// version is the Build ID of the Worker that runs it.
func version(context.Context) (string, error) {
	return os.Getenv("TEMPORAL_WORKER_BUILD_ID"), nil
}

// greet shows which Worker of many ran it.
func greet(_ context.Context, name string) (string, error) {
	return "go greets " + name, nil
}

// listen waits for the signal "say".
func listen(ctx workflow.Context) (string, error) {
	var text string
	workflow.GetSignalChannel(ctx, "say").Receive(ctx, &text)
	return "go heard " + text, nil
}

// hold asks for the version at its start, and again after the signal "go".
func hold(ctx workflow.Context) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	if err := workflow.ExecuteActivity(ctx, "Version").Get(ctx, nil); err != nil {
		return err
	}
	workflow.GetSignalChannel(ctx, "go").Receive(ctx, nil)
	return workflow.ExecuteActivity(ctx, "Version").Get(ctx, nil)
}
