// Command pause waits, and takes others down with it.
//
//	pause                          process 1 of a pod: waits for SIGTERM, reaps orphans
//	pause -guard NAME              process 1 of a cluster's namespaces: ends too when its standard input is closed
//	pause -guard NAME -- COMMAND   runs COMMAND and kills it when its standard input is closed
//
// The guard is how a cluster ends together with the test that started it, also when that test is killed: the kernel
// closes the pipe, and with process 1 the kernel ends every process of the namespace. A byte on the pipe sets the
// process free, for a cluster that shall outlive the command which started it. NAME only marks the process in the
// process list.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	args := os.Args[1:]
	if len(args) >= 2 && args[0] == "-guard" {
		closed := inputClosed()
		if len(args) > 3 && args[2] == "--" {
			os.Exit(run(args[3:], closed))
		}
		wait(closed)
		return
	}
	if len(args) != 0 {
		fmt.Fprintln(os.Stderr, "usage: pause [-guard NAME [-- COMMAND [ARGUMENT]...]]")
		os.Exit(2)
	}
	wait(nil)
}

// inputClosed returns a channel that is closed once standard input ends, and never when a byte came before that.
func inputClosed() <-chan struct{} {
	closed := make(chan struct{})
	go func() {
		for {
			n, err := os.Stdin.Read(make([]byte, 1))
			if n > 0 {
				return
			}
			if err != nil {
				close(closed)
				return
			}
		}
	}()
	return closed
}

func wait(closed <-chan struct{}) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	orphans := make(chan os.Signal, 1)
	signal.Notify(orphans, syscall.SIGCHLD)
	for {
		select {
		case <-stop:
			return
		case <-closed:
			return
		case <-orphans:
			for {
				pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
				if pid <= 0 || (err != nil && !errors.Is(err, syscall.EINTR)) {
					break
				}
			}
		}
	}
}

func run(command []string, closed <-chan struct{}) int {
	// The death signal follows the thread that started the child, so that thread must not end before the process.
	runtime.LockOSThread()
	child := exec.Command(command[0], command[1:]...)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for {
			select {
			case received := <-stop:
				_ = child.Process.Signal(received)
			case <-closed:
				_ = child.Process.Kill()
				return
			}
		}
	}()
	err := child.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode()
	}
	if err != nil {
		return 1
	}
	return 0
}
