// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/cgi"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

// /git/<name>.git are the bare repositories of a folder, by git's own program for smart HTTP (Argo CD's client
// knows no other); /charts/ are the files of another one.
func newGitCommand() *cobra.Command {
	var listen, root, backend string
	c := &cobra.Command{Use: "git-server", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		mux := http.NewServeMux()
		mux.Handle("/git/", &cgi.Handler{
			Path: backend,
			Root: "/git",
			Env:  []string{"GIT_PROJECT_ROOT=" + filepath.Join(root, "git"), "GIT_HTTP_EXPORT_ALL=1"},
		})
		charts := http.FileServer(http.Dir(filepath.Join(root, "charts")))
		mux.Handle("/charts/", http.StripPrefix("/charts", charts))
		server := &http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
		return server.ListenAndServe()
	}}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:8080", "address to listen on")
	c.Flags().StringVar(&root, "root", ".", "folder that holds git/ and charts/")
	c.Flags().StringVar(&backend, "backend", "/usr/lib/git-core/git-http-backend", "git's program")
	return c
}
