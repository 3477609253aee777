// SPDX-License-Identifier: Apache-2.0

// What Argo Workflows makes of tags and expressions, by its own packages: one JSON request on standard input, one
// answer on standard output. `texts` go through the substitution of each of `passes` in turn, as a template does on
// its way from a Workflow to a pod: a tag that a pass can't resolve stays for the next one. `expression` is evaluated
// as an output parameter's `valueFrom.expression` is, in `scope`.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/argoproj/argo-workflows/v3/util/expr/env"
	"github.com/argoproj/argo-workflows/v3/util/template"
	"github.com/expr-lang/expr"
)

type request struct {
	Text       string              `json:"text"`
	Passes     []map[string]string `json:"passes"`
	Expression string              `json:"expression"`
	Scope      map[string]any      `json:"scope"`
}

func replaced(text string, passes []map[string]string) (string, error) {
	for _, values := range passes {
		// Argo substitutes in a template's JSON; so a value is escaped as part of a string.
		marshalled, err := json.Marshal(map[string]string{"text": text})
		if err != nil {
			return "", err
		}
		done, err := template.Replace(string(marshalled), values, true)
		if err != nil {
			return "", err
		}
		var back map[string]string
		if err := json.Unmarshal([]byte(done), &back); err != nil {
			return "", fmt.Errorf("no longer JSON: %w", err)
		}
		text = back["text"]
	}
	return text, nil
}

func evaluated(expression string, scope map[string]any) (any, error) {
	functions := env.GetFuncMap(scope)
	program, err := expr.Compile(expression, expr.Env(functions))
	if err != nil {
		return nil, err
	}
	return expr.Run(program, functions)
}

func main() {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	var result any
	var err error
	if asked.Expression != "" {
		result, err = evaluated(asked.Expression, asked.Scope)
	} else {
		result, err = replaced(asked.Text, asked.Passes)
	}
	answer := map[string]any{"result": result}
	if err != nil {
		answer = map[string]any{"error": err.Error()}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
