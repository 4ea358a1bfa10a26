"""The calls that mmdeploy's scripts make, in their order; its wheels hold no scripts.

``python scripts.py deploy DEPLOY_CFG MODEL_CFG CKPT IMG --work-dir D``, ``test DEPLOY_CFG MODEL_CFG --model F ...``,
``profile DEPLOY_CFG MODEL_CFG FOLDER --model F ...``.
"""

from __future__ import annotations

import argparse
import logging
import os
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
import torch.multiprocessing as mp
from mmdeploy.apis import create_calib_input_data, torch2onnx, visualize_model
from mmdeploy.apis.core import PIPELINE_MANAGER
from mmdeploy.apis.utils import build_task_processor, to_backend
from mmdeploy.backend.sdk.export_info import export2SDK
from mmdeploy.utils import (
    Backend,
    get_backend,
    get_calib_filename,
    get_input_shape,
    get_ir_config,
    get_root_logger,
    load_config,
    target_wrapper,
)
from mmdeploy.utils.timer import TimeCounter


def create_process(name, target, args, kwargs, flag):
    logger = get_root_logger()
    logger.info(f"{name} start.")
    process = mp.Process(target=partial(target_wrapper, target, logger.level, flag), args=args, kwargs=kwargs)
    process.start()
    process.join()
    if flag.value != 0:
        logger.error(f"{name} failed.")
        raise SystemExit(1)
    logger.info(f"{name} success.")


def deploy(args):
    mp.set_start_method("spawn", force=True)
    logger = get_root_logger()
    logger.setLevel(logging.INFO)
    functions = [torch2onnx, create_calib_input_data]
    PIPELINE_MANAGER.enable_multiprocess(True, functions)
    PIPELINE_MANAGER.set_log_level(logging.INFO, functions)
    deploy_cfg, model_cfg = load_config(args.deploy_cfg, args.model_cfg)
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    if args.dump_info:
        export2SDK(deploy_cfg, model_cfg, args.work_dir, pth=args.checkpoint, device="cpu")
    flag = mp.Value("d", 0, lock=False)
    file = get_ir_config(deploy_cfg)["save_file"]
    torch2onnx(args.img, args.work_dir, file, args.deploy_cfg, args.model_cfg, args.checkpoint, device="cpu")
    ir_files = [os.path.join(args.work_dir, file)]  # noqa: PTH118
    calibration = get_calib_filename(deploy_cfg)
    if calibration is not None:
        create_calib_input_data(
            os.path.join(args.work_dir, calibration),  # noqa: PTH118
            args.deploy_cfg,
            args.model_cfg,
            args.checkpoint,
            dataset_cfg=args.calib_dataset_cfg,
            dataset_type="val",
            device="cpu",
        )
    backend = get_backend(deploy_cfg)
    PIPELINE_MANAGER.set_log_level(logging.INFO, [to_backend])
    if backend == Backend.TENSORRT:
        PIPELINE_MANAGER.enable_multiprocess(True, [to_backend])
    files = to_backend(
        backend,
        ir_files,
        work_dir=args.work_dir,
        deploy_cfg=deploy_cfg,
        log_level=logging.INFO,
        device="cpu",
        uri="192.168.1.1:60000",
    )
    for kind, model in ((backend, files), (Backend.PYTORCH, [args.checkpoint])):
        create_process(
            f"visualize {kind.value} model",
            visualize_model,
            (args.model_cfg, args.deploy_cfg, model, args.img, "cpu"),
            {
                "backend": kind,
                "output_file": os.path.join(args.work_dir, f"output_{kind.value}.jpg"),  # noqa: PTH118
                "show_result": False,
            },
            flag,
        )
    logger.info("All process success.")


def test(args):
    deploy_cfg, model_cfg = load_config(args.deploy_cfg, args.model_cfg)
    processor = build_task_processor(model_cfg, deploy_cfg, "cpu")
    loader = deepcopy(model_cfg["test_dataloader"])
    loader["batch_size"] = args.batch_size
    loader["dataset"] = processor.build_dataset(loader["dataset"])
    model = processor.build_backend_model(args.model, data_preprocessor_updater=processor.update_data_preprocessor)
    runner = processor.build_test_runner(model, args.work_dir, dataloader=processor.build_dataloader(loader))
    if args.speed_test:
        with TimeCounter.activate(warmup=2, log_interval=5, with_sync=False, batch_size=args.batch_size):
            runner.test()
    else:
        runner.test()
    model.destroy()


def profile(args):
    deploy_cfg, model_cfg = load_config(args.deploy_cfg, args.model_cfg)
    shape = get_input_shape(deploy_cfg)
    processor = build_task_processor(model_cfg, deploy_cfg, "cpu")
    model = processor.build_backend_model(args.model, data_preprocessor_updater=processor.update_data_preprocessor)
    model = model.eval().to("cpu")
    images = sorted(str(path) for path in Path(args.folder).rglob("*.png"))[:12]
    with TimeCounter.activate(warmup=2, log_interval=5, with_sync=False, batch_size=1):
        for image in images:
            data, _ = processor.create_input([image], shape, getattr(model, "data_preprocessor", None))
            with torch.no_grad():
                model(**data, mode="predict")
    TimeCounter.print_stats(get_backend(deploy_cfg).value)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("script", choices=["deploy", "test", "profile"])
    parser.add_argument("deploy_cfg")
    parser.add_argument("model_cfg")
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--work-dir")
    parser.add_argument("--model", nargs="+")
    parser.add_argument("--calib-dataset-cfg")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--speed-test", action="store_true")
    parser.add_argument("--dump-info", action="store_true")
    args = parser.parse_args()
    if args.script == "deploy":
        args.checkpoint, args.img = args.rest
        deploy(args)
    elif args.script == "test":
        test(args)
    else:
        (args.folder,) = args.rest
        profile(args)


if __name__ == "__main__":
    main()
