"""Every name that mmrazor registers: it is a component here too, or it is known why a config need not build it."""

from __future__ import annotations

import pytest

from razordeploy import registry

NAMES = {
    "DATASETS": """
        CRDDataset
    """,
    "HOOKS": """
        DMCPSubnetHook DumpSubnetHook EstimateResourcesHook PruningStructureHook RazorVisualizationHook
        ResourceInfoHook StopDistillHook
    """,
    "LOOPS": """
        AutoSlimGreedySearchLoop DartsEpochBasedTrainLoop DartsIterBasedTrainLoop EvolutionSearchLoop
        GreedySamplerTrainLoop ItePruneValLoop LSQEpochBasedLoop PTQLoop QATEpochBasedLoop QATValLoop
        SelfDistillValLoop SingleTeacherDistillValLoop SlimmableValLoop SubnetValLoop
    """,
    "MODELS": """
        ABLoss ATLoss AcademicQuantizer ActivationLoss AngleWiseRKD AttentiveMobileNetV3 AutoSlim Autoformer
        AutoformerBackbone BYOTConnector BYOTDistiller BaseAlgorithm BigNAS BigNasConv2d CRDConnector CRDLoss
        ChannelMutator ChannelWiseDivergence ConfigurableDistiller ConvBnAct ConvModuleConnector
        CrossEntropyLoss DAFLDataFreeDistillation DAFLGenerator DCFF DCFFChannelMutator DCFFChannelUnit DISTLoss
        DKDLoss DMCP DMCPBatchNorm2d DMCPChannelMutator DMCPChannelUnit DSNAS Darts DartsBackbone DartsDilConv
        DartsPoolBN DartsSepConv DartsSkipConnect DartsSubnetClsHead DartsZero DataFreeDistillation DeiTClsHead
        DepthwiseSeparableConv DiffChoiceRoute DiffMutableOP DistanceWiseRKD DynamicBatchNorm1d
        DynamicBatchNorm2d DynamicBatchNorm3d DynamicConv2d DynamicInputResizer DynamicLayerNorm
        DynamicLinearClsHead DynamicPatchEmbed FBKDLoss FBKDStudentConnector FBKDTeacherConnector FTLoss
        FakeQuantize FakeQuantizeBase FixedQParamsFakeQuantize FixedQParamsObserver FpnTeacherDistill FuseConv2d
        FusedMovingAvgObsFakeQuantize GroupFisherAlgorithm GroupFisherChannelMutator GroupFisherChannelUnit
        GroupFisherDeploySubModel GroupFisherSubModel GumbelChoiceRoute HistogramObserver Identity
        InformationEntropyLoss ItePruneAlgorithm KDSoftCELoss KLDivergence L1Loss L1MutableChannelUnit L2Loss
        LSQObserver LSQPerChannelObserver LearnableFakeQuantize MBBlock MGDConnector MGDLoss MMArchitectureQuant
        MinMaxObserver MovingAverageMinMaxObserver MovingAveragePerChannelMinMaxObserver MutableChannelContainer
        MutableValue NasMutator NoopObserver NormConnector OFAConv2d OFDDistiller OFDLoss OFDTeacherConnector
        ObserverBase OneHotMutableOP OneShotChannelMutator OneShotMutableChannelUnit OneShotMutableOP
        OneShotMutableValue OneShotProbMutableOP OnehotLikeLoss OpenVINOQuantizer OverhaulFeatureDistillation
        PKDLoss Paraphraser PerChannelMinMaxObserver PlaceholderObserver RecordingObserver ReuseInputObserver
        SPOS SearchableImageClassifier SearchableMobileNetV2 SearchableShuffleNetV2 SelfDistill
        SequentialMutableChannelUnit ShuffleBlock ShuffleXception SimpleMutableChannel SingleTeacherDistill
        SlimmableChannelMutator SlimmableChannelUnit SlimmableNetwork SqueezeMeanPoolingWithDropout
        SquentialMutableChannel TensorRTQuantizer TorchFunctionalConnector TorchNNConnector TorchNativeQuantizer
        Translator UniformQuantizationObserverBase WSLD WideResNet ZSKTGenerator sub_model
    """,
    "MODEL_WRAPPERS": """
        AutoSlimDDP BigNASDDP DMCPDDP DSNASDDP DartsDDP GroupFisherDDP MMArchitectureQuantDDP
        SlimmableNetworkDDP
    """,
    "OPTIM_WRAPPER_CONSTRUCTORS": """
        SeparateOptimWrapperConstructor
    """,
    "TASK_UTILS": """
        BackwardTracer BaseDemoInput BaseEstimator CartsHandler CascadeEncoderDecoderPseudoLoss ChannelAnalyzer
        CustomTracer DefaultDemoInput DefaultMMClsDemoInput DefaultMMDemoInput DefaultMMDetDemoInput
        DefaultMMPoseDemoInput DefaultMMRotateDemoInput DefaultMMSegDemoInput DefaultMMYoloDemoInput
        FunctionInputsRecorder FunctionOutputsDelivery FunctionOutputsRecorder GaussProcessHandler
        ImageClassifierPseudoLoss MLPHandler MethodInputsRecorder MethodOutputsDelivery MethodOutputsRecorder
        MetricPredictor ModuleInputsRecorder ModuleOutputsRecorder ParameterRecorder RBFHandler
        ResourceEstimator SingleStageDetectorPseudoLoss SumPseudoLoss TopdownPoseEstimatorPseudoLoss
        TwoStageDetectorPseudoLoss
    """,
    "TRANSFORMS": """
        AutoAugment AutoAugmentOp AutoAugmentV2 AutoContrastV2 BrightnessV2 Color ContrastV2 EqualizeV2 InvertV2
        PackCRDClsInputs PosterizeV2 RotateV2 SharpnessV2 ShearX ShearY SolarizeAddV2 SolarizeV2 TranslateX
        TranslateXRel TranslateY TranslateYRel
    """,
}
# Read as words of a section, by what uses them; there is nothing to build.
WORDS = {
    **dict.fromkeys(("BackwardTracer", "CustomTracer"), "one tracer, on the captured graph, is behind all names"),
    **dict.fromkeys(
        (
            *("BaseDemoInput", "DefaultDemoInput", "DefaultMMClsDemoInput", "DefaultMMDemoInput"),
            *("DefaultMMDetDemoInput", "DefaultMMPoseDemoInput", "DefaultMMRotateDemoInput", "DefaultMMSegDemoInput"),
            "DefaultMMYoloDemoInput",
        ),
        "demo_input=dict(type=..., input_shape=...) is read for its shape",
    ),
    **dict.fromkeys(
        (
            *("CascadeEncoderDecoderPseudoLoss", "ImageClassifierPseudoLoss", "SingleStageDetectorPseudoLoss"),
            *("SumPseudoLoss", "TopdownPoseEstimatorPseudoLoss", "TwoStageDetectorPseudoLoss"),
        ),
        "nothing is traced backward",
    ),
    "BaseEstimator": "the interface of ResourceEstimator; the counters of operations are the captured graph's",
}
CASES = [(kind, name) for kind, names in NAMES.items() for name in names.split() if name not in WORDS]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("kind", "name"), CASES, ids=[name for _, name in CASES])
def test_registered(kind, name):
    found = getattr(registry, kind).get(name)
    assert found is not None
    assert getattr(registry, kind).get(f"mmrazor.{name}") is found


def test_words_are_known_names():
    assert set(WORDS) <= set(NAMES["TASK_UTILS"].split())
