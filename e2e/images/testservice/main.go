// testservice is the tenant's service of the end-to-end tests: it is healthy, ready, busy, hungry or dead on command.
//
// It owns no files and needs no rights: it runs as any user on a read-only root. Its state is in memory, so that a
// restart is a fresh start.
//
//	GET  /                         {"hostname", "pid", "uptimeSeconds", "ready", "healthy", "vectors"}
//	GET  /healthz, /readyz         200 or 503
//	POST /healthy?value=BOOL       what /healthz answers from now on
//	POST /ready?value=BOOL         what /readyz answers from now on
//	POST /cpu?millis=N&seconds=S   uses N thousandths of a core for S seconds; answers at once
//	POST /memory?mib=N             holds N MiB of touched memory (0 lets go of it)
//	POST /exit?code=N              answers, then exits with N
//	GET  /vectors                  {"count": N}
//	POST /vectors?count=N          sets it
//	POST /write?path=P&bytes=N     writes N bytes to a file, synced (to try a volume)
//
// Environment: PORT (8080), EXIT_AT_START (exits at once with this code), READY_AFTER (seconds until it is ready),
// DRAIN_SECONDS (between SIGTERM, which makes it not ready, and its end; 0).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type service struct {
	started        time.Time
	ready, healthy atomic.Bool
	draining       atomic.Bool
	vectors        atomic.Int64

	mu     sync.Mutex
	memory [][]byte
}

// seconds reads a duration from the environment; nothing means zero, nonsense is an error at start.
func seconds(name string) time.Duration {
	text := os.Getenv(name)
	if text == "" {
		return 0
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || value < 0 {
		log.Fatalf("%s=%q is not a number of seconds", name, text)
	}
	return time.Duration(value * float64(time.Second))
}

// number reads an integer parameter between 0 and most.
func number(r *http.Request, name string, most int64) (int64, error) {
	value, err := strconv.ParseInt(r.FormValue(name), 10, 64)
	if err != nil || value < 0 || value > most {
		return 0, fmt.Errorf("%s=%q is not a whole number between 0 and %d", name, r.FormValue(name), most)
	}
	return value, nil
}

// handler turns a function that may fail into one that answers 400 with the reason, else the result as JSON.
func handler(f func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer, err := f(r)
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			answer = map[string]string{"error": err.Error()}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}
}

// probe answers 200 while the flag is set.
func probe(ok func() bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if !ok() {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

func (s *service) isReady() bool { return s.ready.Load() && !s.draining.Load() }

func (s *service) identity(*http.Request) (any, error) {
	hostname, err := os.Hostname()
	return map[string]any{
		"hostname": hostname, "pid": os.Getpid(), "uptimeSeconds": int(time.Since(s.started).Seconds()),
		"ready": s.isReady(), "healthy": s.healthy.Load(), "vectors": s.vectors.Load(),
	}, err
}

// set stores ?value=BOOL.
func set(flag *atomic.Bool) http.HandlerFunc {
	return handler(func(r *http.Request) (any, error) {
		value, err := strconv.ParseBool(r.FormValue("value"))
		if err != nil {
			return nil, fmt.Errorf("value=%q is neither true nor false", r.FormValue("value"))
		}
		flag.Store(value)
		return map[string]bool{"value": value}, nil
	})
}

// burn uses a share of one core per 1,000 millis, in slices of 10 ms, so that a sampler sees a steady use.
func (s *service) burn(r *http.Request) (any, error) {
	millis, err := number(r, "millis", 64_000)
	if err != nil {
		return nil, err
	}
	secs, err := number(r, "seconds", 86_400)
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(time.Duration(secs) * time.Second)
	const slice = 10 * time.Millisecond
	for left := millis; left > 0; left -= 1000 {
		busy := slice * time.Duration(min(left, 1000)) / 1000
		go func() {
			for time.Now().Before(end) {
				start := time.Now()
				for time.Since(start) < busy {
				}
				time.Sleep(slice - busy)
			}
		}()
	}
	return map[string]int64{"millis": millis, "seconds": secs}, nil
}

// hold keeps N MiB, every page written, since untouched memory costs nothing.
func (s *service) hold(r *http.Request) (any, error) {
	mib, err := number(r, "mib", 1<<20)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(len(s.memory)) > mib {
		clear(s.memory[mib:])
		s.memory = s.memory[:mib]
		debug.FreeOSMemory()
	}
	for int64(len(s.memory)) < mib {
		block := make([]byte, 1<<20)
		for i := range block {
			block[i] = byte(i)
		}
		s.memory = append(s.memory, block)
	}
	return map[string]int64{"mib": mib}, nil
}

func (s *service) exit(r *http.Request) (any, error) {
	code, err := number(r, "code", 255)
	if err != nil {
		return nil, err
	}
	log.Printf("exiting with %d as asked", code)
	time.AfterFunc(100*time.Millisecond, func() { os.Exit(int(code)) }) // after the answer is out
	return map[string]int64{"code": code}, nil
}

func (s *service) count(*http.Request) (any, error) {
	return map[string]int64{"count": s.vectors.Load()}, nil
}

func (s *service) setCount(r *http.Request) (any, error) {
	count, err := number(r, "count", 1<<62)
	if err != nil {
		return nil, err
	}
	s.vectors.Store(count)
	return s.count(r)
}

func (s *service) write(r *http.Request) (any, error) {
	bytes, err := number(r, "bytes", 1<<30)
	if err != nil {
		return nil, err
	}
	file, err := os.Create(r.FormValue("path"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := file.Write(make([]byte, bytes)); err != nil {
		return nil, err
	}
	return map[string]any{"path": file.Name(), "bytes": bytes}, file.Sync()
}

// client is `testservice get URL`: the image has no shell and no curl, so this is what `kubectl exec` runs in it.
func client(url string) {
	answer, err := (&http.Client{Timeout: 5 * time.Second}).Get(url)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Status)
	if _, err := os.Stdout.ReadFrom(answer.Body); err != nil {
		log.Fatal(err)
	}
}

func main() {
	log.SetFlags(log.LUTC | log.LstdFlags)
	if len(os.Args) == 3 && os.Args[1] == "get" {
		client(os.Args[2])
		return
	}
	if text := os.Getenv("EXIT_AT_START"); text != "" {
		code, err := strconv.Atoi(text)
		if err != nil {
			log.Fatalf("EXIT_AT_START=%q is not a number", text)
		}
		log.Printf("exiting with %d at start, as EXIT_AT_START asks", code)
		os.Exit(code)
	}
	s := &service{started: time.Now()}
	s.healthy.Store(true)
	drain := seconds("DRAIN_SECONDS")
	time.AfterFunc(seconds("READY_AFTER"), func() { s.ready.Store(true) })

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", handler(s.identity))
	mux.HandleFunc("GET /healthz", probe(s.healthy.Load))
	mux.HandleFunc("GET /readyz", probe(s.isReady))
	mux.HandleFunc("POST /healthy", set(&s.healthy))
	mux.HandleFunc("POST /ready", set(&s.ready))
	mux.HandleFunc("POST /cpu", handler(s.burn))
	mux.HandleFunc("POST /memory", handler(s.hold))
	mux.HandleFunc("POST /exit", handler(s.exit))
	mux.HandleFunc("GET /vectors", handler(s.count))
	mux.HandleFunc("POST /vectors", handler(s.setCount))
	mux.HandleFunc("POST /write", handler(s.write))

	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	server := &http.Server{Addr: ":" + port, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer cancel()
		<-ctx.Done()
		log.Printf("draining for %s", drain)
		s.draining.Store(true)
		time.Sleep(drain)
		// Requests that are under way are answered; then the end, with 0.
		end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(end)
	}()
	log.Printf("listening on :%s", port)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-stopped
	log.Print("drained")
}
