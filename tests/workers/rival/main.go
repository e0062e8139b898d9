// The Workers that the runtime is measured against: an activity that gives back its argument, on Temporal's Go SDK with its
// defaults. By the argument of the program it does so itself (plain), has a local service do so (http), or a program (exec).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"strings"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("name one of plain, http and exec")
	}
	echo, found := map[string]func(context.Context, string) (string, error){
		"plain": plain,
		"http":  service,
		"exec":  program,
	}[os.Args[1]]
	if !found {
		return fmt.Errorf("%q is none of plain, http and exec", os.Args[1])
	}
	c, err := client.Dial(client.Options{
		HostPort:  os.Getenv("TEMPORAL_ADDRESS"),
		Namespace: os.Getenv("TEMPORAL_NAMESPACE"),
	})
	if err != nil {
		return err
	}
	defer c.Close()
	w := worker.New(c, os.Getenv("TASK_QUEUE"), worker.Options{})
	w.RegisterActivityWithOptions(echo, activity.RegisterOptions{Name: "Echo"})
	return w.Run(worker.InterruptCh())
}

func plain(_ context.Context, text string) (string, error) {
	return text, nil
}

func service(ctx context.Context, text string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, os.Getenv("SERVICE_URL"), strings.NewReader(text))
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the service answered %s", response.Status)
	}
	return string(body), nil
}

func program(ctx context.Context, text string) (string, error) {
	command := exec.CommandContext(ctx, "cat")
	command.Stdin = strings.NewReader(text)
	output, err := command.Output()
	return string(output), err
}
