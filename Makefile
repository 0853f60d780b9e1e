# Set-up happens by itself, and again when the requirements change. PYTHON=python3.12 chooses another Python.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: bench bench-data bench-errors train-peers bench-peers bench-catalogue bench-catalogue-speed bench-catalogue-likeness bench-focus-loop bench-focus-real bench-diameters bench-classes train-fecral train-316l remeasure-fecral list-fecral bench-fecral bench-throughput bench-cascade pictures pictures-fecral bench-fuzz bench-kill bench-large bench-many bench-realism bench-simulation bench-simulated-training bench-learning bench-corrections bench-predicted-f1 bench-focus-gate bench-focus-cost recognition-data train-recognition bench-recognition recognition-freeze focus-benchmark focus-figure focus-freeze run test setup lint types arrows format requirements clean

## the main job, on the built-in demonstration
run: setup
	$(BIN)/luigi --module defectpipe RunAll $(ARGS)

## everything that has to hold; a file of tests stays in one process, each process on one thread, slow files come first
test: setup lint types arrows
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 \
		$(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder $(ARGS)

setup: $(READY)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "$(PYTHON) is not Python 3.11 to 3.13; choose one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

arrows: setup
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## write requirements.txt again, from pyproject.toml: one lock for Python 3.11 to 3.13, Linux and macOS
requirements:
	$(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --extra formats --extra notebooks --extra dev \
		--generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade --output-file requirements.txt

clean:
	rm -rf $(VENV) demo demo-defects .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

## every benchmark that needs no data, with the trainings that it needs: many hours of one core, most of them of the last two groups
bench: bench-simulation bench-classes bench-corrections bench-catalogue-speed bench-fuzz bench-kill bench-many bench-large \
	bench-focus-loop focus-freeze focus-benchmark \
	recognition-data recognition-freeze train-recognition bench-recognition

## every benchmark that needs the real sets (DEFECTPIPE_DATA): figures of the models as they ship, rivals trained first; TRAIN=yes trains these models, too, before all else; CASCADE=file.xml adds bench-throughput, TRAINCASCADE=program bench-cascade. ARGS go to the single targets, not here
bench-data: $(if $(TRAIN),train-fecral train-316l) bench-fecral bench-errors bench-predicted-f1 bench-diameters \
	bench-focus-gate bench-focus-cost bench-focus-real bench-realism bench-catalogue-likeness \
	$(if $(CASCADE),bench-throughput) $(if $(TRAINCASCADE),bench-cascade) \
	train-peers bench-peers bench-simulated-training bench-learning

## a catalogue built and searched, and how often the images most like one are of its kind
bench-catalogue: bench-catalogue-speed bench-catalogue-likeness

## building and searching a catalogue of synthetic tables: ARGS="100000 1000000"
bench-catalogue-speed: setup
	$(BIN)/python benchmarks/catalogue_speed.py $(ARGS)

## the five images most like one: simulated images, and the FeCrAl set, which it needs
bench-catalogue-likeness: setup
	$(BIN)/python benchmarks/catalogue_likeness.py

## kill the demonstration's run at random moments and start it again: the same bytes, nothing done twice
bench-kill: setup
	$(BIN)/python benchmarks/kill_run.py $(ARGS)

## memory and time of 1,000 and 10,000 small images: make bench-many ARGS="1000 10000"
bench-many: setup
	$(BIN)/python benchmarks/many_images.py $(ARGS)

## the README's pictures, from the demonstration; needs Chromium
pictures: setup
	$(BIN)/python docs/make_pictures.py

## the FeCrAl set is needed for these: DEFECTPIPE_DATA names the folder that holds fecral-loops/
train-fecral: setup
	$(BIN)/python benchmarks/train_fecral.py

## models/316l-loops, cross-validated with two images left out; needs the folder 316l-loops/ beside the FeCrAl set
train-316l: setup
	$(BIN)/luigi --module defectpipe TrainModel --name 316l-loops --recipe benchmarks/316l-recipe.json \
		--groups benchmarks/316l-groups.csv --images-dir $(or $(DEFECTPIPE_DATA),../shared/data)/316l-loops \
		--labels-dir $(or $(DEFECTPIPE_DATA),../shared/data)/316l-loops/labels.coco.json

## which images the model was trained on, by hashes of their pixels, for a model whose training did not list them
list-fecral: setup
	$(BIN)/python benchmarks/fecral_images.py

## the held-out loops measured anew in their boxes, for a change of the measurement alone: tables and card follow
remeasure-fecral: setup
	$(BIN)/python benchmarks/fecral_remeasure.py

## diameters beside rivals, simulated and real, where their errors come from, their uncertainty; ARGS=--synthetic needs no data
bench-diameters: setup
	$(BIN)/python benchmarks/diameters.py $(ARGS)

## every figure of the card, from the held-out tables that it ships with
bench-fecral: setup
	$(BIN)/python benchmarks/fecral_figures.py

## every label and loop by the kind of its error, what each kind costs: ARGS="--pictures FOLDER" draws crops of them
bench-errors: setup
	$(BIN)/python benchmarks/error_analysis.py $(ARGS)

## rival networks trained without each fold, into PEERS_CACHE: about 11 CPU minutes a fold; what is there is kept: ARGS="centre --folds 0 4"
train-peers: setup
	$(BIN)/python benchmarks/peer_networks.py $(ARGS)

## blob detectors of scikit-image and trackpy (the extra `benchmarks`), and what train-peers has trained, by the same rules: ARGS="--only NAME"
bench-peers: setup
	$(BIN)/python benchmarks/peers.py $(ARGS)

## the predicted F1 of images without labels, judged on folds that it was not made from
bench-predicted-f1: setup
	$(BIN)/python benchmarks/predicted_f1.py $(ARGS)

## where the CPU time of the chain and of a run goes, beside a published cascade: make bench-throughput CASCADE=file.xml
bench-throughput: setup
	$(BIN)/python benchmarks/throughput.py $(CASCADE) $(ARGS)

## our cascade trainer beside OpenCV's: make bench-cascade TRAINCASCADE=/path/to/opencv_traincascade
bench-cascade: setup
	$(BIN)/python benchmarks/cascade_trainer.py $(TRAINCASCADE) $(ARGS)

## peak memory and seams of an image of 30,000 × 30,000 px: make bench-large SIDE=10000 for a smaller one
bench-large: setup
	$(BIN)/python benchmarks/large_image.py $(or $(SIDE),30000) $(or $(BITS),8)

## simulated images for each CPU second, and where the time goes
bench-simulation: setup
	$(BIN)/python benchmarks/simulation_speed.py

## what simulated loops are worth in training, on real images: make bench-simulated-training ARGS="--steps 3800 --cascade"
bench-simulated-training: setup
	$(BIN)/python benchmarks/simulated_training.py $(ARGS)

## how many images to label: from scratch and from a model, one budget of CPU time each: ARGS="--cpu-minutes 2"
bench-learning: setup
	$(BIN)/python benchmarks/learning_curves.py $(ARGS)

## what a model gains by learning from corrections; ARGS=--scratch trains one from scratch beside it; needs no data
bench-corrections: setup
	$(BIN)/python benchmarks/corrections_gain.py $(ARGS)

## loops, black dots and cavities told apart on simulated fields
bench-classes: setup
	$(BIN)/python benchmarks/classes.py $(ARGS)

## the worst image of each family, drawn; real images, so the folder is ignored by git
pictures-fecral: setup
	$(BIN)/python benchmarks/fecral_pictures.py

## simulated fields beside real ones: needs the FeCrAl and 316L sets
bench-realism: setup
	$(BIN)/python benchmarks/simulation_realism.py $(ARGS)

## damaged files by the thousand; needs no data, and takes the real microscope files in where they are: ARGS="50000 7"
bench-fuzz: setup
	$(BIN)/python benchmarks/fuzz_readers.py $(ARGS)

## the focus gate on simulated fields, and what it says of the real ones as they are: ARGS="--write" puts both into the card
bench-focus-gate: setup
	$(BIN)/python benchmarks/focus_gate.py $(ARGS)

## CPU time of the focus stage beside that of the others, in a run on real fields
bench-focus-cost: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/focus_cost.py $(ARGS)

## frames until the best focus, by the score and by a golden section
bench-focus-loop: setup
	$(BIN)/python benchmarks/focus_loop.py $(ARGS)

## the focus score on real images: needs sem-defocus/, sem-textures/ and the FeCrAl set
bench-focus-real: setup
	$(BIN)/python benchmarks/focus_real.py $(ARGS)

## focus networks and classical measures on simulated SEM images: tables 1 and 2, figure 2; trains what is not there yet. IMAGES=4000: only so many for training; SHIP=spectral: becomes models/focus
focus-benchmark: setup
	$(BIN)/python benchmarks/focus_train.py $(if $(IMAGES),--images $(IMAGES)) $(ARGS)
	$(BIN)/python benchmarks/focus_speed.py
	$(BIN)/python benchmarks/focus_benchmark.py $(if $(IMAGES),--images $(IMAGES)) $(if $(SHIP),--ship $(SHIP))
	$(BIN)/python benchmarks/focus_tables.py

## figure 2 alone, from what focus-benchmark has trained
focus-figure: setup
	$(BIN)/python benchmarks/focus_figure.py

## whether the test set of the focus benchmark is still the frozen one
focus-freeze: setup
	$(BIN)/python benchmarks/focus_freeze.py

## the simulated sets of recognition, kept in RECOGNITION_DATA: about 25 minutes of one core; resumable
recognition-data: setup
	$(BIN)/python benchmarks/recognition_data.py $(ARGS)

## train what of recognition is not trained yet, into RECOGNITION_CACHE; resumable; ARGS="recogniser --steps 4000"
train-recognition: setup
	$(BIN)/python benchmarks/recognition_train.py $(ARGS)

## every figure of recognition on its test sets: per class, dose and deformation, views, transfer, calibration
bench-recognition: setup
	$(BIN)/python benchmarks/recognition.py $(ARGS)

## whether the test sets of recognition are still the frozen ones
recognition-freeze: setup
	$(BIN)/python benchmarks/recognition_freeze.py
