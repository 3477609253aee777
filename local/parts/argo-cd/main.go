// SPDX-License-Identifier: Apache-2.0

// One binary for what Argo CD needs to follow a git repository: its application controller and repo server,
// a Redis that lives in memory, and a server of git repositories and chart archives. Which one it is, its
// file name (a symlink) says.
package main

import (
	"os"
	"path/filepath"

	askpass "github.com/argoproj/argo-cd/v3/cmd/argocd-git-ask-pass/commands"
	controller "github.com/argoproj/argo-cd/v3/cmd/argocd-application-controller/commands"
	reposerver "github.com/argoproj/argo-cd/v3/cmd/argocd-repo-server/commands"
	"github.com/spf13/cobra"
)

func main() {
	var c *cobra.Command
	switch filepath.Base(os.Args[0]) {
	case "argocd-application-controller":
		c = controller.NewCommand()
	case "argocd-repo-server":
		c = reposerver.NewCommand()
	case "argocd-git-ask-pass":
		c = askpass.NewCommand()
	case "memory-redis":
		c = newRedisCommand()
	case "git-server":
		c = newGitCommand()
	default:
		println("call me by the name of one of my programs")
		os.Exit(2)
	}
	c.SilenceUsage = true
	if err := c.Execute(); err != nil {
		os.Exit(1)
	}
}
