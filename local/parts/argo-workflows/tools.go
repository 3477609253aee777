//go:build tools

// SPDX-License-Identifier: Apache-2.0

// What else is built from this module: the programs of Argo Workflows, so that go.sum has what they need.
package main

import (
	_ "github.com/argoproj/argo-workflows/v3/cmd/argoexec/commands"
	_ "github.com/argoproj/argo-workflows/v3/cmd/workflow-controller"
)
