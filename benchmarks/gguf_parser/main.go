// Command gguf_parser prints what gguf-parser-go, as a library, estimates that llama.cpp takes for
// a model without a GPU: one JSON object, sizes in bytes.
//
//	gguf_parser -path FILE.gguf -context 8192 -parallel 1 -type-k f16 -type-v f16 -flash-attention
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"

	parser "github.com/gpustack/gguf-parser-go"
)

var cacheTypes = map[string]parser.GGMLType{
	"f16":  parser.GGMLTypeF16,
	"q8_0": parser.GGMLTypeQ8_0,
	"q4_0": parser.GGMLTypeQ4_0,
}

func main() {
	path := flag.String("path", "", "the GGUF file")
	context := flag.Int("context", 0, "tokens of all slots together")
	parallel := flag.Int("parallel", 1, "slots")
	typeK := flag.String("type-k", "f16", "of the cached keys")
	typeV := flag.String("type-v", "f16", "of the cached values")
	flash := flag.Bool("flash-attention", false, "with flash attention")
	flag.Parse()

	keys, keysKnown := cacheTypes[*typeK]
	values, valuesKnown := cacheTypes[*typeV]
	if !keysKnown || !valuesKnown {
		fail(fmt.Errorf("cache types %s and %s: f16, q8_0 and q4_0 are known", *typeK, *typeV))
	}
	file, err := parser.ParseGGUFFile(*path)
	if err != nil {
		fail(err)
	}
	options := []parser.GGUFRunEstimateOption{
		parser.WithLLaMACppContextSize(int32(*context)),
		parser.WithParallelSize(int32(*parallel)),
		parser.WithLLaMACppCacheKeyType(keys),
		parser.WithLLaMACppCacheValueType(values),
		parser.WithLLaMACppOffloadLayers(0),
	}
	if *flash {
		options = append(options, parser.WithFlashAttention())
	}
	estimate := file.EstimateLLaMACppRun(options...)
	host := estimate.Devices[0]
	err = json.NewEncoder(os.Stdout).Encode(map[string]uint64{
		"weights":   uint64(host.Weight.Sum()),
		"kv_cache":  uint64(host.KVCache.Sum()),
		"compute":   uint64(host.Computation.Sum()),
		"footprint": uint64(host.Footprint),
		"ram":       uint64(estimate.SummarizeItem(false, 0, 0).RAM.UMA),
		"ram_mmap":  uint64(estimate.SummarizeItem(true, 0, 0).RAM.UMA),
	})
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "gguf_parser:", err)
	os.Exit(1)
}
