// SPDX-License-Identifier: Apache-2.0

// One binary for what runs an Argo workflow: its controller and the executor that runs in its pods. Which one it is,
// its file name (a symlink) says. Argo's own main of the controller can't be imported; this one has the same settings
// and neither leader election nor metrics.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	executor "github.com/argoproj/argo-workflows/v3/cmd/argoexec/commands"
	wfclientset "github.com/argoproj/argo-workflows/v3/pkg/client/clientset/versioned"
	"github.com/argoproj/argo-workflows/v3/workflow/common"
	"github.com/argoproj/argo-workflows/v3/workflow/controller"
	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func newControllerCommand() *cobra.Command {
	var kubeconfig, namespace string
	command := &cobra.Command{Use: "workflow-controller", Args: cobra.NoArgs}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "of whom it acts as")
	command.Flags().StringVar(&namespace, "namespace", "argo", "where its ConfigMap is")
	command.RunE = func(c *cobra.Command, _ []string) error {
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return err
		}
		config.QPS, config.Burst = 20, 30
		made, err := controller.NewWorkflowController(
			c.Context(), config, kubernetes.NewForConfigOrDie(config), wfclientset.NewForConfigOrDie(config),
			namespace, "", "argoexec:test", "IfNotPresent", "text", common.ConfigMapName, false,
		)
		if err != nil {
			return err
		}
		made.Run(c.Context(), 4, 1, 1, 1, 1)
		return nil
	}
	return command
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var c *cobra.Command
	switch filepath.Base(os.Args[0]) {
	case "workflow-controller":
		c = newControllerCommand()
	case "argoexec":
		c = executor.NewRootCommand()
	default:
		println("call me by the name of one of my programs")
		os.Exit(2)
	}
	if err := c.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(64)
	}
}
