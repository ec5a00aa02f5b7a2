"""The steps of the reduction, one module a step: preprocess, process, postprocess, cubebuild."""
