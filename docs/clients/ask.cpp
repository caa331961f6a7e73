// Asks a served model for its verdict: ask http://HOST:8000 bottle part.ppm
// c++ -std=c++17 ask.cpp -lcurl
#include <curl/curl.h>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

int main(int count, char **words) {
  if (count != 4) return 2;
  std::ifstream file(words[3], std::ios::binary);
  std::string magic, pixels;
  int width = 0, height = 0, depth = 0;
  file >> magic >> width >> height >> depth;
  file.get();
  pixels.assign(std::istreambuf_iterator<char>(file), {});  // RGB, rows from the top

  nlohmann::json request;
  request["inputs"] = {{{"name", "images"}, {"datatype", "UINT8"}, {"shape", {1, height, width, 3}},
                        {"parameters", {{"binary_data_size", pixels.size()}}}}};
  request["outputs"] = {{{"name", "pred_score"}}, {{"name", "threshold"}}, {{"name", "is_anomalous"}}};
  std::string header = request.dump(), body = header + pixels, text;

  CURL *curl = curl_easy_init();
  const auto url = std::string(words[1]) + "/v2/models/" + words[2] + "/infer";
  const auto length = "Inference-Header-Content-Length: " + std::to_string(header.size());
  curl_slist *headers = curl_slist_append(nullptr, length.c_str());
  const auto append = +[](char *data, size_t, size_t size, void *to) {
    return static_cast<std::string *>(to)->append(data, size), size;
  };
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.data());
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, append);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &text);
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 10000L);
  const CURLcode failed = curl_easy_perform(curl);
  const auto answer = nlohmann::json::parse(text, nullptr, false);
  if (failed || !answer.is_object() || answer.contains("error")) {
    std::cerr << (failed ? curl_easy_strerror(failed) : text.c_str()) << '\n';
    return 1;
  }
  nlohmann::json values;
  for (const auto &output : answer["outputs"]) values[output["name"]] = output["data"][0];
  std::cout << (values["is_anomalous"] ? "ANOMALOUS " : "ok ") << values["pred_score"] << ' '
            << values["threshold"] << ' ' << words[3] << '\n';
}
