//go:build cgo && opencv

#include "dnn.h"

#include <cstring>
#include <exception>
#include <stdexcept>
#include <vector>

#include <malloc.h>

#include <opencv2/core.hpp>
#include <opencv2/dnn.hpp>

namespace {

struct Net {
	cv::dnn::Net net;
	std::vector<cv::String> names;
	cv::Mat input;             // 1 x channels x height x width, used again and again
	std::vector<cv::Mat> outs; // of the last forward call
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

// One table look-up for each value takes a quarter of what blobFromImage
// needs, which makes five passes over the picture.
void tabulate(float *table, double mean, double scale)
{
	for (int x = 0; x < 256; x++)
		table[x] = static_cast<float>((x - mean) * scale);
}

void feed_colours(const cv::Mat &m, const dnn_feed &feed, float *to)
{
	float table[3][256];
	for (int c = 0; c < 3; c++)
		tabulate(table[c], feed.mean[c], feed.scale[c]);
	const int area = m.rows * m.cols;
	const int first = feed.order == DNN_RGB ? 2 : 0;
	float *a = to, *b = to + area, *c = to + 2 * area;
	for (int y = 0; y < m.rows; y++) {
		const unsigned char *p = m.ptr<unsigned char>(y);
		for (int x = 0; x < m.cols; x++, p += 3) {
			*a++ = table[0][p[first]];
			*b++ = table[1][p[1]];
			*c++ = table[2][p[2 - first]];
		}
	}
}

// The weights are those of cv::cvtColor (ITU-R BT.601 in 14 bits).
void feed_grey(const cv::Mat &m, const dnn_feed &feed, float *to)
{
	float table[256];
	tabulate(table, feed.mean[0], feed.scale[0]);
	for (int y = 0; y < m.rows; y++) {
		const unsigned char *p = m.ptr<unsigned char>(y);
		for (int x = 0; x < m.cols; x++, p += 3)
			*to++ = table[(p[0] * 1868 + p[1] * 9617 + p[2] * 4899 + 8192) >> 14];
	}
}

} // namespace

char *dnn_threads(int n)
{
	return guarded([&] { cv::setNumThreads(n); });
}

char *dnn_load(const char *path, const char **outputs, int count, void **net)
{
	return guarded([&] {
		Net n;
		n.net = cv::dnn::readNetFromONNX(path);
		n.net.setPreferableBackend(cv::dnn::DNN_BACKEND_OPENCV);
		n.net.setPreferableTarget(cv::dnn::DNN_TARGET_CPU);
		n.names.assign(outputs, outputs + count);
		*net = new Net(n);
	});
}

void dnn_close(void *net)
{
	delete static_cast<Net *>(net);
}

char *dnn_forward(void *net, void *picture, const dnn_feed *feed, dnn_output *outputs)
{
	return guarded([&] {
		Net &n = *static_cast<Net *>(net);
		const cv::Mat &m = *static_cast<cv::Mat *>(picture);
		if (m.type() != CV_8UC3)
			throw std::invalid_argument("picture is not 8-bit BGR");
		const int channels = feed->order == DNN_GREY ? 1 : 3;
		const int shape[] = {1, channels, m.rows, m.cols};
		n.input.create(4, shape, CV_32F);
		if (channels == 1)
			feed_grey(m, *feed, n.input.ptr<float>());
		else
			feed_colours(m, *feed, n.input.ptr<float>());
		n.net.setInput(n.input);
		n.net.forward(n.outs, n.names);
		for (size_t i = 0; i < n.names.size(); i++) {
			const cv::Mat &out = n.outs.at(i);
			if (out.type() != CV_32F || !out.isContinuous() || out.dims < 1)
				throw std::invalid_argument("net output is not plain float32");
			outputs[i].data = out.ptr<float>();
			outputs[i].count = static_cast<int>(out.total());
			outputs[i].width = out.size[out.dims - 1];
		}
	});
}

long long dnn_heap(void)
{
	const struct mallinfo2 m = mallinfo2();
	return static_cast<long long>(m.uordblks) + static_cast<long long>(m.hblkhd);
}
