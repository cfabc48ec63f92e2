// volumes is the node's dynamic storage: it makes a folder for each claim of the default StorageClass, grows the claim
// when more is asked for, and removes the folder when the claim is gone.
//
// The controller manager's own host-path provisioner was tried first and falls short twice: the kubelet never applies
// fsGroup to a hostPath volume, and nothing answers when a claim grows. Here volumes are of the type `local`, so that
// the kubelet treats them as it treats a disk: fsGroup is applied, and the pod is bound to the volume's node. A size is
// a promise only: nothing enforces it.
//
// It speaks to the API server with nothing but the standard library: three kinds of request do not earn the dependency
// on client-go. It keeps no state: a new watch starts with all that is there, and every step is safe to repeat.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

const (
	provisioner    = "berth.dev/volumes"
	byAnnotation   = "volume.kubernetes.io/storage-provisioner" // on a claim, from the controller manager
	nodeAnnotation = "volume.kubernetes.io/selected-node"       // on a claim, from the scheduler
	pvAnnotation   = "pv.kubernetes.io/provisioned-by"          // on a volume, from us
)

type storage map[string]string

type metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace"`
	UID         string            `json:"uid"`
	Annotations map[string]string `json:"annotations"`
}

type claim struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		AccessModes      []string                   `json:"accessModes"`
		Resources        struct{ Requests storage } `json:"resources"`
		StorageClassName string                     `json:"storageClassName"`
		VolumeName       string                     `json:"volumeName"`
		VolumeMode       string                     `json:"volumeMode"`
	} `json:"spec"`
	Status struct {
		Phase    string  `json:"phase"`
		Capacity storage `json:"capacity"`
	} `json:"status"`
}

type volume struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		Policy string                `json:"persistentVolumeReclaimPolicy"`
		Local  struct{ Path string } `json:"local"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

type object = map[string]any

type server struct {
	address string
	folder  string
	client  *http.Client
}

// call sends one request; a status in fine is no error.
func (s *server) call(method, path, contentType string, body any, fine ...int) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(method, s.address+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", contentType)
	answer, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	for _, status := range append(fine, http.StatusOK, http.StatusCreated) {
		if answer.StatusCode == status {
			return nil
		}
	}
	return fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
}

func (s *server) patch(path string, body any) error {
	return s.call(http.MethodPatch, path, "application/merge-patch+json", body, http.StatusNotFound)
}

// claimed does what a claim asks for.
func (s *server) claimed(c *claim) error {
	if c.Metadata.Annotations[byAnnotation] != provisioner {
		return nil
	}
	node, asked := c.Metadata.Annotations[nodeAnnotation], c.Spec.Resources.Requests["storage"]
	name := "pvc-" + c.Metadata.UID
	switch {
	case c.Spec.VolumeName == "" && node != "":
		if c.Spec.VolumeMode == "Block" {
			log.Printf("%s/%s asks for a block device, which this storage has not", c.Metadata.Namespace, c.Metadata.Name)
			return nil
		}
		return s.provision(c, name, node, asked)
	case c.Status.Phase == "Bound" && c.Spec.VolumeName == name && c.Status.Capacity["storage"] != asked:
		// The API server lets a bound claim only grow, and a granted size is written as it was asked for: different
		// means larger.
		log.Printf("%s/%s grows from %s to %s", c.Metadata.Namespace, c.Metadata.Name, c.Status.Capacity["storage"], asked)
		grown := object{"capacity": storage{"storage": asked}}
		if err := s.patch("/api/v1/persistentvolumes/"+name, object{"spec": grown}); err != nil {
			return err
		}
		return s.patch("/api/v1/namespaces/"+c.Metadata.Namespace+"/persistentvolumeclaims/"+c.Metadata.Name+"/status",
			object{"status": grown})
	}
	return nil
}

func (s *server) provision(c *claim, name, node, asked string) error {
	path := filepath.Join(s.folder, name)
	log.Printf("%s/%s gets %s on %s", c.Metadata.Namespace, c.Metadata.Name, asked, node)
	// Owned by root and closed to others, as a fresh disk is: a pod that runs as someone else needs an fsGroup.
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return s.call(http.MethodPost, "/api/v1/persistentvolumes", "application/json", object{
		"apiVersion": "v1",
		"kind":       "PersistentVolume",
		"metadata":   object{"name": name, "annotations": map[string]string{pvAnnotation: provisioner}},
		"spec": object{
			"capacity":                      storage{"storage": asked},
			"accessModes":                   c.Spec.AccessModes,
			"storageClassName":              c.Spec.StorageClassName,
			"persistentVolumeReclaimPolicy": "Delete",
			"local":                         object{"path": path},
			"claimRef": object{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": c.Metadata.Namespace,
				"name": c.Metadata.Name, "uid": c.Metadata.UID},
			"nodeAffinity": object{"required": object{"nodeSelectorTerms": []object{{"matchExpressions": []object{
				{"key": "kubernetes.io/hostname", "operator": "In", "values": []string{node}}}}}}},
		},
	}, http.StatusConflict)
}

// released removes what nobody claims any more.
func (s *server) released(v *volume) error {
	if v.Metadata.Annotations[pvAnnotation] != provisioner || v.Status.Phase != "Released" || v.Spec.Policy != "Delete" {
		return nil
	}
	// The path is an object's field: it must never lead out of our own folder.
	if filepath.Dir(v.Spec.Local.Path) != s.folder {
		return fmt.Errorf("%s lies at %s, which is not ours to remove", v.Metadata.Name, v.Spec.Local.Path)
	}
	log.Printf("%s is released and goes", v.Metadata.Name)
	if err := os.RemoveAll(v.Spec.Local.Path); err != nil {
		return err
	}
	return s.call(http.MethodDelete, "/api/v1/persistentvolumes/"+v.Metadata.Name, "application/json", object{}, http.StatusNotFound)
}

// watch hands every object of a kind to f, first those that exist; it returns when the stream ends or f fails.
func watch[T any](s *server, resource string, f func(*T) error) error {
	query := url.Values{"watch": {"true"}, "sendInitialEvents": {"true"}, "allowWatchBookmarks": {"true"},
		"resourceVersionMatch": {"NotOlderThan"}}
	answer, err := s.client.Get(s.address + "/api/v1/" + resource + "?" + query.Encode())
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("watching %s: %s", resource, answer.Status)
	}
	for events := json.NewDecoder(answer.Body); ; {
		var event struct {
			Type   string
			Object json.RawMessage
		}
		if err := events.Decode(&event); err != nil {
			return err
		}
		switch event.Type {
		case "ADDED", "MODIFIED":
			item := new(T)
			if err := json.Unmarshal(event.Object, item); err != nil {
				return err
			}
			if err := f(item); err != nil {
				return err
			}
		case "ERROR":
			return fmt.Errorf("watching %s: %s", resource, event.Object)
		}
	}
}

// forever watches again after each end; what failed is then handed out once more.
func forever[T any](s *server, resource string, f func(*T) error) {
	for {
		err := watch(s, resource, f)
		if err != nil && err != io.EOF {
			log.Printf("again in a second: %v", err)
		}
		time.Sleep(time.Second)
	}
}

func main() {
	log.SetFlags(log.LUTC | log.LstdFlags)
	address := flag.String("server", "", "the API server's `URL`")
	authority := flag.String("ca", "", "the cluster's CA certificate")
	certificate := flag.String("cert", "", "client certificate")
	key := flag.String("key", "", "its key")
	folder := flag.String("dir", "", "absolute folder for the volumes")
	flag.Parse()

	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	if err != nil {
		log.Fatal(err)
	}
	pem, err := os.ReadFile(*authority)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		log.Fatalf("%s holds no certificate", *authority)
	}
	if !filepath.IsAbs(*folder) {
		log.Fatalf("-dir %q is not absolute", *folder)
	}
	s := &server{address: *address, folder: filepath.Clean(*folder), client: &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots},
	}}}
	go forever(s, "persistentvolumes", s.released)
	forever(s, "persistentvolumeclaims", s.claimed)
}
