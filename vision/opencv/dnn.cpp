//go:build cgo && opencv

#include "dnn.h"

#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include <opencv2/core.hpp>
#include <opencv2/dnn.hpp>

namespace {

struct Net {
	cv::dnn::Net net;
	std::vector<cv::String> names;
};

template <typename F> char *guarded(F f)
{
	try {
		f();
		return nullptr;
	} catch (const std::exception &e) {
		return strdup(e.what());
	} catch (...) {
		return strdup("unknown C++ exception");
	}
}

} // namespace

char *dnn_threads(int n)
{
	return guarded([&] { cv::setNumThreads(n); });
}

char *dnn_load(const char *path, void **net)
{
	return guarded([&] {
		Net n;
		n.net = cv::dnn::readNetFromONNX(path);
		n.net.setPreferableBackend(cv::dnn::DNN_BACKEND_OPENCV);
		n.net.setPreferableTarget(cv::dnn::DNN_TARGET_CPU);
		n.names = n.net.getUnconnectedOutLayersNames();
		*net = new Net(n);
	});
}

void dnn_close(void *net)
{
	delete static_cast<Net *>(net);
}

char *dnn_forward(void *net, void *picture, double mean, double scale, int swap,
                  dnn_output *outputs, int max, int *found)
{
	*found = 0;
	return guarded([&] {
		Net &n = *static_cast<Net *>(net);
		const cv::Mat &m = *static_cast<cv::Mat *>(picture);
		n.net.setInput(cv::dnn::blobFromImage(m, scale, cv::Size(), cv::Scalar::all(mean), swap != 0, false, CV_32F));
		std::vector<cv::Mat> outs;
		n.net.forward(outs, n.names);
		if (outs.size() > static_cast<size_t>(max))
			throw std::length_error("net has " + std::to_string(outs.size()) + " outputs");
		for (const cv::Mat &out : outs) {
			if (out.type() != CV_32F || !out.isContinuous() || out.dims < 1)
				throw std::invalid_argument("net output is not plain float32");
			dnn_output &o = outputs[*found];
			o.count = static_cast<int>(out.total());
			o.width = out.size[out.dims - 1];
			o.data = static_cast<float *>(malloc(o.count * sizeof(float)));
			if (!o.data)
				throw std::bad_alloc();
			memcpy(o.data, out.ptr<float>(), o.count * sizeof(float));
			++*found;
		}
	});
}
